# What holds for every build: the optimisation levels, where the products land, and the compiler cache.

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# A debug build is mostly there to run tests, and unoptimised it would run them several times slower. Lines and function
# names suffice for their traces, and variables cost a third of the time to compile: -DUEXT4_VARIABLES=ON for a debugger.
option(UEXT4_VARIABLES "Debug builds tell a debugger of variables and types" OFF)
if(UEXT4_VARIABLES)
    set(uext4_debug "-O1 -g")
else()
    set(uext4_debug "-O1 -g1")
endif()
set(CMAKE_C_FLAGS_DEBUG "${uext4_debug}")
set(CMAKE_CXX_FLAGS_DEBUG "${uext4_debug}")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")

# Several files compiled at once take a fraction of the time. The presets release and fuzz do so with all (CMAKE_UNITY_BUILD),
# debug with those of tests, tools and frontends; the explorer needs the libraries file by file. The others compile each file
# by itself: there one that does not include what it uses is an error.
option(UEXT4_UNITY_PROGRAMS "Several files of a test, a tool or a frontend are compiled at once" OFF)

# Under a sanitizer the longest of them take several times as long.
set(UEXT4_UNIT_SECONDS 1200 CACHE STRING "A GoogleTest program that takes longer has failed")

# Run-time checks that cost too much for a product: lock ranks above all.
add_compile_definitions($<$<CONFIG:Debug>:UEXT4_CHECKS=1>)
# An index or a part beyond its array ends the test that made it, also where no sanitizer looks.
add_compile_definitions($<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS=1>)
# File offsets are 64 bits on every host; the FUSE library refuses to compile without this.
add_compile_definitions(_FILE_OFFSET_BITS=64)

find_program(UEXT4_CCACHE ccache)
if(UEXT4_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER "${UEXT4_CCACHE}")
    set(CMAKE_CXX_COMPILER_LAUNCHER "${UEXT4_CCACHE}")
endif()
