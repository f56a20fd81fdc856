# A layer is one static library, a test is one GoogleTest program.

set(UEXT4_WARNINGS -Wall -Wextra -Wno-missing-field-initializers -Werror=return-type -Werror=unused-result)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND UEXT4_WARNINGS -Wshadow=local)
else()
    # clang has no -Wshadow=local; its -Wshadow already leaves members alone. The statement expression is how TRY works.
    list(APPEND UEXT4_WARNINGS -Wshadow -Wno-gnu-statement-expression -Wthread-safety -Werror=thread-safety)
endif()

# uext4_warnings(TARGET): the warnings every target of ours is compiled with.
function(uext4_warnings target)
    target_compile_options(${target} PRIVATE ${UEXT4_WARNINGS})
    set_target_properties(${target} PROPERTIES
        POSITION_INDEPENDENT_CODE ON
        C_VISIBILITY_PRESET hidden
        CXX_VISIBILITY_PRESET hidden
        VISIBILITY_INLINES_HIDDEN ON)
endfunction()

# uext4_unity(TARGET): several files of it are compiled at once where UEXT4_UNITY_PROGRAMS says so.
function(uext4_unity target)
    if(UEXT4_UNITY_PROGRAMS)
        set_target_properties(${target} PROPERTIES UNITY_BUILD ON)
    endif()
endfunction()

# Leaves sources that are not in the tree out of the list `variable`; only in a partial build, otherwise CMake reports
# them itself.
function(uext4_existing_sources variable)
    if(NOT UEXT4_PARTIAL)
        return()
    endif()
    set(existing "")
    foreach(source IN LISTS ${variable})
        get_filename_component(path "${source}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
        if(EXISTS "${path}" OR source MATCHES "^[$]<")
            list(APPEND existing "${source}")
        else()
            message(STATUS "not in the tree, left out: ${path}")
        endif()
    endforeach()
    set(${variable} "${existing}" PARENT_SCOPE)
endfunction()

# uext4_layer(NAME n [TESTS_ONLY] [DEPENDS layer...] [SOURCES file...] [LIBRARIES target...])
#
# Makes target uext4_<n>: a static library, or an interface library when there are no sources (headers only).
# DEPENDS names layers, LIBRARIES names targets from outside. Targets that link the layer get both. TESTS_ONLY keeps the
# layer out of the products.
function(uext4_layer)
    cmake_parse_arguments(ARG "TESTS_ONLY" "NAME" "DEPENDS;SOURCES;LIBRARIES" ${ARGN})
    if(NOT ARG_NAME OR ARG_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "uext4_layer: a NAME is needed and nothing unknown: ${ARG_UNPARSED_ARGUMENTS}")
    endif()
    uext4_existing_sources(ARG_SOURCES)
    set(target uext4_${ARG_NAME})
    if(ARG_SOURCES)
        add_library(${target} STATIC ${ARG_SOURCES})
        uext4_warnings(${target})
        set(scope PUBLIC)
    else()
        add_library(${target} INTERFACE)
        set(scope INTERFACE)
    endif()
    target_include_directories(${target} ${scope} "${PROJECT_SOURCE_DIR}/src")
    if(ARG_TESTS_ONLY)
        target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}")
    endif()
    if(ARG_NAME MATCHES "^(api|capi|cli|fuse)$")
        target_include_directories(${target} ${scope} "${PROJECT_SOURCE_DIR}/include")
    endif()
    if(ARG_NAME MATCHES "^(sandbox|capi|cli|fuse)$")
        target_include_directories(${target} ${scope} "${PROJECT_SOURCE_DIR}/frontends")
    endif()
    target_link_libraries(${target} ${scope} ${ARG_LIBRARIES} Threads::Threads)
    if(NOT ARG_TESTS_ONLY)
        set_property(GLOBAL APPEND PROPERTY UEXT4_LAYER_TARGETS ${target})
    endif()
    # Which of the named layers exist is known only after all folders were read; uext4_finish_layers() links them.
    set_property(GLOBAL PROPERTY UEXT4_DEPENDS_${ARG_NAME} "${ARG_DEPENDS}")
    set_property(GLOBAL APPEND PROPERTY UEXT4_LAYER_NAMES ${ARG_NAME})
endfunction()

# Links every layer and program to the layers that it names.
function(uext4_finish_layers)
    get_property(names GLOBAL PROPERTY UEXT4_LAYER_NAMES)
    foreach(name IN LISTS names)
        get_target_property(type uext4_${name} TYPE)
        set(scope PUBLIC)
        if(type STREQUAL "INTERFACE_LIBRARY")
            set(scope INTERFACE)
        endif()
        get_property(depends GLOBAL PROPERTY UEXT4_DEPENDS_${name})
        foreach(dependency IN LISTS depends)
            if(TARGET uext4_${dependency})
                target_link_libraries(uext4_${name} ${scope} uext4_${dependency})
            else()
                message(FATAL_ERROR "layer ${name} depends on layer ${dependency}, which is not in the build")
            endif()
        endforeach()
    endforeach()
    get_property(programs GLOBAL PROPERTY UEXT4_PROGRAM_NAMES)
    foreach(name IN LISTS programs)
        get_property(layers GLOBAL PROPERTY UEXT4_PROGRAM_LAYERS_${name})
        foreach(layer IN LISTS layers)
            if(TARGET uext4_${layer})
                target_link_libraries(${name} PRIVATE uext4_${layer})
            else()
                message(FATAL_ERROR "program ${name} uses layer ${layer}, which is not in the build")
            endif()
        endforeach()
    endforeach()
endfunction()

# uext4_program(DEPENDS layer... SOURCES file... [LIBRARIES target...])
#
# Called once, by frontends/cli: the program bin/uext4. DEPENDS may name front ends whose folders are read later.
function(uext4_program)
    cmake_parse_arguments(ARG "" "" "DEPENDS;SOURCES;LIBRARIES" ${ARGN})
    uext4_existing_sources(ARG_SOURCES)
    if(NOT ARG_SOURCES)
        return()
    endif()
    add_executable(uext4_program ${ARG_SOURCES})
    uext4_warnings(uext4_program)
    uext4_unity(uext4_program)
    set_target_properties(uext4_program PROPERTIES OUTPUT_NAME uext4)
    target_include_directories(uext4_program PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/include"
        "${PROJECT_SOURCE_DIR}/frontends")
    target_compile_definitions(uext4_program PRIVATE UEXT4_VERSION="${PROJECT_VERSION}")
    target_link_libraries(uext4_program PRIVATE ${ARG_LIBRARIES} Threads::Threads)
    set_property(GLOBAL APPEND PROPERTY UEXT4_PROGRAM_NAMES uext4_program)
    set_property(GLOBAL PROPERTY UEXT4_PROGRAM_LAYERS_uext4_program "${ARG_DEPENDS}")
endfunction()

# uext4_test_machinery(NAME n SOURCES file...)
#
# Makes the objects <n>, which several tests and tools have in common: they name $<TARGET_OBJECTS:n> among their sources.
function(uext4_test_machinery)
    cmake_parse_arguments(ARG "" "NAME" "SOURCES" ${ARGN})
    add_library(${ARG_NAME} OBJECT ${ARG_SOURCES})
    uext4_warnings(${ARG_NAME})
    uext4_unity(${ARG_NAME})
    target_include_directories(${ARG_NAME} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${ARG_NAME} PRIVATE uext4_api uext4_check)
endfunction()

# uext4_test(NAME n [LAYERS layer...] SOURCES file... [LABELS label...] [LIBRARIES target...] [TIMEOUT seconds])
#
# Makes the GoogleTest program <n> and one ctest entry unit.<n> for all of it: one process per program starts faster
# than one per test case. Tests labelled `long` run only when asked for.
function(uext4_test)
    if(NOT UEXT4_TESTS)
        return()
    endif()
    cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "LAYERS;SOURCES;LABELS;LIBRARIES" ${ARGN})
    if(NOT ARG_NAME OR NOT ARG_SOURCES OR ARG_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "uext4_test: NAME and SOURCES are needed and nothing unknown: ${ARG_UNPARSED_ARGUMENTS}")
    endif()
    uext4_existing_sources(ARG_SOURCES)
    if(NOT ARG_SOURCES)
        return()
    endif()
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT ${UEXT4_UNIT_SECONDS})
    endif()
    add_executable(${ARG_NAME} ${ARG_SOURCES})
    uext4_warnings(${ARG_NAME})
    uext4_unity(${ARG_NAME})
    target_include_directories(${ARG_NAME} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/frontends"
        "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${ARG_NAME} PRIVATE ${ARG_LIBRARIES} GTest::gmock GTest::gtest GTest::gtest_main
        Threads::Threads)
    set_property(GLOBAL APPEND PROPERTY UEXT4_PROGRAM_NAMES ${ARG_NAME})
    set_property(GLOBAL PROPERTY UEXT4_PROGRAM_LAYERS_${ARG_NAME} "${ARG_LAYERS}")
    add_test(NAME unit.${ARG_NAME} COMMAND ${ARG_NAME})
    # The file tells ./dev which cases ran, failed and were skipped; ctest knows only the exit status.
    set_tests_properties(unit.${ARG_NAME} PROPERTIES
        TIMEOUT ${ARG_TIMEOUT}
        LABELS "unit;${ARG_LABELS}"
        ENVIRONMENT "GTEST_OUTPUT=xml:${PROJECT_BINARY_DIR}/results/unit.${ARG_NAME}.xml")
endfunction()

# uext4_script_test(NAME n COMMAND command... [LABELS label...] [TIMEOUT seconds])
#
# Registers a script as ctest entry <n>. Exit status 77 means skipped, and the last line of its output says why. After
# TIMEOUT it is asked to end, so that it takes away what it has mounted; ctest itself would kill it.
function(uext4_script_test)
    if(NOT UEXT4_TESTS)
        return()
    endif()
    cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "COMMAND;LABELS" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 600)
    endif()
    set(seconds_to_end 60)
    add_test(NAME ${ARG_NAME} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
        COMMAND timeout --foreground --kill-after=${seconds_to_end} ${ARG_TIMEOUT} ${ARG_COMMAND})
    math(EXPR killed_after "${ARG_TIMEOUT} + ${seconds_to_end} + 10")
    set_tests_properties(${ARG_NAME} PROPERTIES
        TIMEOUT ${killed_after} SKIP_RETURN_CODE 77 LABELS "script;${ARG_LABELS}")
endfunction()

# uext4_fuzz(NAME n LAYERS layer... SOURCES file...)
#
# Makes the libFuzzer program fuzz_<n>; only in the fuzz preset.
function(uext4_fuzz)
    if(NOT UEXT4_FUZZ)
        return()
    endif()
    cmake_parse_arguments(ARG "" "NAME" "LAYERS;SOURCES;LIBRARIES" ${ARGN})
    add_executable(fuzz_${ARG_NAME} ${ARG_SOURCES})
    uext4_warnings(fuzz_${ARG_NAME})
    target_include_directories(fuzz_${ARG_NAME} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
    target_link_libraries(fuzz_${ARG_NAME} PRIVATE ${ARG_LIBRARIES} Threads::Threads)
    target_link_options(fuzz_${ARG_NAME} PRIVATE -fsanitize=fuzzer)
    set_property(GLOBAL APPEND PROPERTY UEXT4_PROGRAM_NAMES fuzz_${ARG_NAME})
    set_property(GLOBAL PROPERTY UEXT4_PROGRAM_LAYERS_fuzz_${ARG_NAME} "${ARG_LAYERS}")
endfunction()
