# Finds Python and torch: torch where CMAKE_PREFIX_PATH or Torch_DIR says, else the interpreter's.
# MISTRAL_EXT_TORCH_CUDA then says whether the .cu files are compiled.
if(MISTRAL_EXT_PYTHON)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
else()
  find_package(Python 3.10 COMPONENTS Interpreter)
endif()

# Asked again at each configuration, so that a build folder follows a change of Python.
if(NOT CMAKE_PREFIX_PATH
   AND Python_EXECUTABLE
   AND (NOT Torch_DIR OR Torch_DIR STREQUAL MISTRAL_EXT_TORCH_OF_PYTHON))
  # Importing torch would take seconds; finding it does not.
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE torch_folder
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
    RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${Python_EXECUTABLE} has no torch: install it there, or say where one is with "
                        "-DCMAKE_PREFIX_PATH=<torch>/share/cmake or -DPython_EXECUTABLE=<python>.")
  endif()
  set(Torch_DIR "${torch_folder}/share/cmake/Torch" CACHE PATH "Folder of TorchConfig.cmake" FORCE)
  set(MISTRAL_EXT_TORCH_OF_PYTHON "${Torch_DIR}" CACHE INTERNAL "The Torch_DIR found through Python")
endif()
if(NOT "${Torch_DIR}" STREQUAL "${MISTRAL_EXT_LAST_TORCH_DIR}")
  # torch's CMake files cache these.
  unset(TORCH_LIBRARY CACHE)
  unset(c10_LIBRARY CACHE)
  unset(TORCH_PYTHON_LIBRARY CACHE)
  set(MISTRAL_EXT_LAST_TORCH_DIR "${Torch_DIR}" CACHE INTERNAL "The Torch_DIR of the last configuration")
endif()

include(mistral_ext_find_torch)
mistral_ext_find_torch()
message(STATUS "mistral_ext: torch ${MISTRAL_EXT_TORCH_VERSION}, CUDA kernels ${MISTRAL_EXT_TORCH_CUDA}")

separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
add_compile_options(${torch_flags})
find_library(TORCH_PYTHON_LIBRARY torch_python PATHS "${TORCH_INSTALL_PREFIX}/lib" NO_DEFAULT_PATH)

# Machine code for the GPUs the kernels are tuned for or known to run on, and PTX that later ones
# compile for themselves.
set(MISTRAL_EXT_CUDA_ARCHITECTURES "80-real;89-real;90a-real;90-virtual" CACHE STRING
    "GPU architectures of the CUDA kernels, as CMake writes them")
