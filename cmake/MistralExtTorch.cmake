# find_package(Torch), asking the Python interpreter where torch lies unless CMAKE_PREFIX_PATH says it.
if(MISTRAL_EXT_PYTHON)
  find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
else()
  find_package(Python COMPONENTS Interpreter)
endif()
if(NOT CMAKE_PREFIX_PATH AND NOT Torch_DIR AND Python_EXECUTABLE)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND CMAKE_PREFIX_PATH "${torch_prefix}")
endif()
find_package(Torch 2.11 REQUIRED)
# torch's flags are for its own ABI; warnings inside its headers are not ours to see.
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
add_compile_options(${torch_flags})
find_library(TORCH_PYTHON_LIBRARY torch_python PATHS "${TORCH_INSTALL_PREFIX}/lib" NO_DEFAULT_PATH)
