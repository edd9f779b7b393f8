# What `cmake --install` lays out, with the Python package folder, or any C++ prefix, as the prefix:
#   lib/libmistral_ext.so   include/mistral_ext/...   share/cmake/mistral_ext/...
#   share/licenses/mistral_ext/...: this library's, and those of what is compiled into it
#   bin/mistral_ext_generate, bin/mistral_ext_bench (with MISTRAL_EXT_PROGRAMS and CLI11)
#   _C.<abi>.so, _build_info.py (with MISTRAL_EXT_PYTHON)
# MISTRAL_EXT_INPLACE gives the source's mistral_ext/ the same at build time, with links in place of the
# headers: MistralExtHeaders.cmake.
include(CMakePackageConfigHelpers)

set(config_folder "${CMAKE_CURRENT_BINARY_DIR}/config")
set(MISTRAL_EXT_TORCH_FOLDER "")
if(MISTRAL_EXT_INPLACE)
  set(MISTRAL_EXT_TORCH_FOLDER "${TORCH_INSTALL_PREFIX}/share/cmake")
  set(config_folder "${CMAKE_CURRENT_SOURCE_DIR}/mistral_ext/share/cmake/mistral_ext")
endif()
set(install_config share/cmake/mistral_ext)

configure_package_config_file(
  "${CMAKE_CURRENT_SOURCE_DIR}/cmake/mistral_extConfig.cmake.in" "${config_folder}/mistral_extConfig.cmake"
  INSTALL_DESTINATION ${install_config} NO_SET_AND_CHECK_MACRO)
# Semantic versioning below 1.0, where a minor version may break what a patch may not; from 1.0 on it is
# SameMajorVersion.
set(compatibility SameMinorVersion)
if(PROJECT_VERSION_MAJOR GREATER 0)
  set(compatibility SameMajorVersion)
endif()
write_basic_package_version_file("${config_folder}/mistral_extConfigVersion.cmake" COMPATIBILITY ${compatibility})
configure_file(cmake/mistral_ext_find_torch.cmake "${config_folder}/mistral_ext_find_torch.cmake" COPYONLY)

install(TARGETS mistral_ext EXPORT mistral_ext LIBRARY DESTINATION lib)
install(EXPORT mistral_ext NAMESPACE mistral_ext:: FILE mistral_extTargets.cmake DESTINATION ${install_config})
install(FILES "${config_folder}/mistral_extConfig.cmake" "${config_folder}/mistral_extConfigVersion.cmake"
              "${config_folder}/mistral_ext_find_torch.cmake" DESTINATION ${install_config})
if(MISTRAL_EXT_INPLACE)
  export(EXPORT mistral_ext NAMESPACE mistral_ext:: FILE "${config_folder}/mistral_extTargets.cmake")
endif()

install(FILES LICENSE DESTINATION share/licenses/mistral_ext)
install(DIRECTORY licenses/ DESTINATION share/licenses/mistral_ext FILES_MATCHING PATTERN "*.txt"
        PATTERN programs EXCLUDE)

if(MISTRAL_EXT_PROGRAMS_BUILT)
  install(TARGETS mistral_ext_generate mistral_ext_bench RUNTIME DESTINATION bin)
  install(DIRECTORY licenses/programs/ DESTINATION share/licenses/mistral_ext FILES_MATCHING PATTERN "*.txt")
endif()

if(MISTRAL_EXT_PYTHON)
  set(build_info "${config_folder}/_build_info.py")
  if(MISTRAL_EXT_INPLACE)
    set(build_info "${CMAKE_CURRENT_SOURCE_DIR}/mistral_ext/_build_info.py")
  endif()
  set(python_cuda False)
  if(MISTRAL_EXT_TORCH_CUDA)
    set(python_cuda True)
  endif()
  configure_file(cmake/_build_info.py.in "${build_info}" @ONLY)
  install(FILES "${build_info}" DESTINATION .)
  install(TARGETS _C LIBRARY DESTINATION .)
endif()
