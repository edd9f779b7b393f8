#!/usr/bin/env bash
# Compiles what CUDA needs, where there is an nvcc, with or without a torch that has CUDA: every .cu
# file, which includes no torch, for the GPU it is tuned for; and checks the files that launch them,
# which any torch has the headers for. Says so where there is nothing to compile with.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t kernels < <(git ls-files '*.cu')
mapfile -t launchers < <(git ls-files 'csrc/mistral_ext/ops/cuda/*.cpp' 'csrc/mistral_ext/models/cuda/*.cpp')
if ! command -v nvcc > /dev/null; then
  echo "CUDA: no nvcc on this machine: ${#kernels[@]} .cu files not compiled"
  exit 0
fi
torch=$(python -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])")
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT

compile_kernel() {
  echo "nvcc $1"
  nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -Xcompiler -Wall,-Wextra,-Werror \
    -Werror all-warnings -I csrc -I tests/cuda -c "$1" -o "$objects/$BASHPID.o"
}

# nvcc hands these to the C++ compiler, with the toolkit's headers.
compile_launcher() {
  echo "c++ $1"
  nvcc -std=c++20 -Xcompiler -fsyntax-only,-Wall,-Wextra,-Werror -DFMT_HEADER_ONLY=1 \
    -DC10_CUDA_NO_CMAKE_CONFIGURE_FILE -I csrc -isystem "$torch/include" \
    -isystem "$torch/include/torch/csrc/api/include" -c "$1" -o "$objects/$BASHPID.o"
}

# As many at once as there are processors; xargs fails where one does.
each() {
  local what=$1
  shift
  printf '%s\0' "$@" | xargs -0 -n 1 -P "$(nproc)" bash -euc "$what \"\$0\""
}
export torch objects
export -f compile_kernel compile_launcher
each compile_kernel "${kernels[@]}"
each compile_launcher "${launchers[@]}"
echo "CUDA: ${#kernels[@]} kernel files and ${#launchers[@]} launching files compiled"
