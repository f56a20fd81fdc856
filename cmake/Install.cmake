# The products: one shared library, one static archive, one program, and what others need to find them.

set(UEXT4_SOVERSION 0)

# uext4_merged_static_library(TARGET t OUTPUT_NAME n LAYERS layer-target...)
#
# Makes target <t> that writes lib<n>.a: the objects of the named layers and of every layer below them in one archive,
# because nobody outside should have to know, or order on a command line, the layers.
function(uext4_merged_static_library)
    cmake_parse_arguments(ARG "" "TARGET;OUTPUT_NAME" "LAYERS" ${ARGN})
    # A front end sees all layers: everything declared so far lies below it.
    get_property(all GLOBAL PROPERTY UEXT4_LAYER_TARGETS)
    list(APPEND all ${ARG_LAYERS})
    list(REMOVE_DUPLICATES all)
    set(objects "")
    foreach(layer IN LISTS all)
        get_target_property(type ${layer} TYPE)
        if(type STREQUAL "STATIC_LIBRARY")
            list(APPEND objects "$<TARGET_OBJECTS:${layer}>")
        endif()
    endforeach()
    add_library(${ARG_TARGET} STATIC ${objects})
    set_target_properties(${ARG_TARGET} PROPERTIES OUTPUT_NAME ${ARG_OUTPUT_NAME} LINKER_LANGUAGE CXX)
    target_include_directories(${ARG_TARGET} INTERFACE "${PROJECT_SOURCE_DIR}/include")
    target_link_libraries(${ARG_TARGET} INTERFACE fmt::fmt PkgConfig::ISAL PkgConfig::BLKID Threads::Threads)
endfunction()

# uext4_library(DEPENDS layer... SOURCES file... [LIBRARIES target...])
#
# Called once, by frontends/capi. Makes uext4_capi (the C ABI as a layer), uext4_shared (libuext4.so) and uext4_static
# (the merged libuext4.a). Exported are the symbols marked with default visibility in uext4_capi and uext4_api.
function(uext4_library)
    cmake_parse_arguments(ARG "" "" "DEPENDS;SOURCES;LIBRARIES" ${ARGN})
    uext4_layer(NAME capi DEPENDS ${ARG_DEPENDS} SOURCES ${ARG_SOURCES} LIBRARIES ${ARG_LIBRARIES})
    target_include_directories(uext4_capi PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/frontends")

    file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/shared.cpp"  # written anew only if it changes
         CONTENT "// The shared library is made of the layers alone.\n")
    add_library(uext4_shared SHARED "${CMAKE_CURRENT_BINARY_DIR}/shared.cpp")
    set(whole uext4_capi)
    if(TARGET uext4_api)
        list(APPEND whole uext4_api)
    endif()
    # Nothing inside the library refers to its entry points, so they have to be asked for as a whole.
    foreach(archive IN LISTS whole)
        target_link_libraries(uext4_shared PRIVATE ${archive})
    endforeach()
    string(REPLACE ";" "," whole "${whole}")
    set_target_properties(uext4_shared PROPERTIES
        OUTPUT_NAME uext4
        VERSION ${PROJECT_VERSION}
        SOVERSION ${UEXT4_SOVERSION}
        LINK_LIBRARY_OVERRIDE "WHOLE_ARCHIVE,${whole}")
    target_include_directories(uext4_shared INTERFACE "${PROJECT_SOURCE_DIR}/include")

    uext4_merged_static_library(TARGET uext4_static OUTPUT_NAME uext4 LAYERS uext4_capi)
endfunction()

# Installs the names by which mount(8) and umount(8) look for what serves fuse.uext4: links to the program, relative, so that
# an installed tree can be moved.
function(uext4_install_helpers program)
    foreach(helper IN ITEMS mount.fuse.uext4 umount.fuse.uext4)
        install(CODE "
            set(folder \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_SBINDIR}\")
            file(RELATIVE_PATH target \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_SBINDIR}\" \"\${CMAKE_INSTALL_PREFIX}/${program}\")
            message(STATUS \"Installing: \${folder}/${helper}\")
            file(MAKE_DIRECTORY \"\${folder}\")
            file(CREATE_LINK \"\${target}\" \"\${folder}/${helper}\" SYMBOLIC)")
    endforeach()
endfunction()

# Called by the root after all folders were read: installs the products that exist.
function(uext4_install_rules)
    include(GNUInstallDirs)
    include(CMakePackageConfigHelpers)

    foreach(program IN ITEMS uext4_program uext4 uext4_cli)
        if(TARGET ${program})
            get_target_property(type ${program} TYPE)
            if(type STREQUAL "EXECUTABLE")
                install(TARGETS ${program} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
                uext4_install_helpers("${CMAKE_INSTALL_BINDIR}/$<TARGET_FILE_NAME:${program}>")
            endif()
        endif()
    endforeach()
    if(NOT TARGET uext4_shared)
        return()
    endif()
    install(TARGETS uext4_shared uext4_static
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
    if(EXISTS "${PROJECT_SOURCE_DIR}/include/uext4")
        install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/uext4" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
            FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
    endif()

    configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/uext4Config.cmake.in"
        "${PROJECT_BINARY_DIR}/uext4Config.cmake"
        INSTALL_DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/uext4"
        PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
    # Before 1.0 a minor version may break what the one before it promised.
    write_basic_package_version_file("${PROJECT_BINARY_DIR}/uext4ConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
    install(FILES "${PROJECT_BINARY_DIR}/uext4Config.cmake" "${PROJECT_BINARY_DIR}/uext4ConfigVersion.cmake"
        DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/uext4")

    # The prefix is found from where the file lies, so that an installed tree can be moved.
    file(RELATIVE_PATH UEXT4_PC_TO_PREFIX "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
    configure_file("${PROJECT_SOURCE_DIR}/cmake/uext4.pc.in" "${PROJECT_BINARY_DIR}/uext4.pc" @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/uext4.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endfunction()
