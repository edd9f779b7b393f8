# mistral_ext_find_torch(): find_package(Torch), and where torch's own CMake files stop, what they
# would have given. Used by this build and, installed, by find_package(mistral_ext).
#
# They stop where torch has CUDA and the machine has no CUDA toolkit, which is what `pip install torch`
# leaves on most machines. Nothing here needs the toolkit but our .cu files: without it torch's
# libraries are linked by name.
#
# MISTRAL_EXT_CUDA=OFF asks for the same with a toolkit, one that lacks what torch looks for.
#
# Sets MISTRAL_EXT_TORCH_CUDA (torch has CUDA, and .cu files can be compiled), TORCH_LIBRARIES,
# TORCH_CXX_FLAGS, TORCH_INSTALL_PREFIX and MISTRAL_EXT_TORCH_VERSION (as torch writes it, without the
# local part: 2.13.0).
macro(mistral_ext_find_torch)
  find_path(
    mistral_ext_torch_root include/torch/library.h
    PATHS ${CMAKE_PREFIX_PATH} ${Torch_DIR}
    PATH_SUFFIXES . ../.. ../../..
    NO_DEFAULT_PATH NO_CACHE)
  set(mistral_ext_torch_has_cuda OFF)
  set(MISTRAL_EXT_TORCH_CUDA OFF)
  if(mistral_ext_torch_root AND EXISTS "${mistral_ext_torch_root}/lib/libtorch_cuda.so")
    set(mistral_ext_torch_has_cuda ON)
    if(NOT DEFINED MISTRAL_EXT_CUDA OR MISTRAL_EXT_CUDA)
      include(CheckLanguage)
      check_language(CUDA)
      if(CMAKE_CUDA_COMPILER)
        set(MISTRAL_EXT_TORCH_CUDA ON)
      endif()
    endif()
  endif()

  if(mistral_ext_torch_has_cuda AND NOT MISTRAL_EXT_TORCH_CUDA)
    if(NOT TARGET torch)
      get_filename_component(TORCH_INSTALL_PREFIX "${mistral_ext_torch_root}" REALPATH)
      add_library(torch INTERFACE IMPORTED)
      target_include_directories(
        torch INTERFACE "${TORCH_INSTALL_PREFIX}/include"
                        "${TORCH_INSTALL_PREFIX}/include/torch/csrc/api/include")
      # libtorch.so has no symbols: it is there to load libtorch_cuda.so, which registers itself. A linker
      # that leaves out what no symbol needs, as some systems' does, is told to keep it.
      set(mistral_ext_libtorch "\"${TORCH_INSTALL_PREFIX}/lib/libtorch.so\"")
      target_link_libraries(
        torch INTERFACE "-Wl,--push-state,--no-as-needed,${mistral_ext_libtorch},--pop-state"
                        "${TORCH_INSTALL_PREFIX}/lib/libtorch_cpu.so" "${TORCH_INSTALL_PREFIX}/lib/libc10.so")
    endif()
    set(TORCH_LIBRARIES torch)
    include("${TORCH_INSTALL_PREFIX}/share/cmake/Torch/TorchConfigVersion.cmake")
    set(MISTRAL_EXT_TORCH_VERSION "${PACKAGE_VERSION}")
    message(STATUS "torch has CUDA, and no .cu file is compiled: linking torch's libraries by name")
  else()
    find_package(Torch 2.11 REQUIRED)
    set(MISTRAL_EXT_TORCH_VERSION "${Torch_VERSION}")
  endif()

  # A nightly's CMake files leave out the date that its Python version has.
  if(EXISTS "${TORCH_INSTALL_PREFIX}/version.py")
    file(STRINGS "${TORCH_INSTALL_PREFIX}/version.py" mistral_ext_torch_version REGEX "^__version__ = ")
    if(mistral_ext_torch_version MATCHES "'([^'+]+)")
      set(MISTRAL_EXT_TORCH_VERSION "${CMAKE_MATCH_1}")
    endif()
  endif()
endmacro()
