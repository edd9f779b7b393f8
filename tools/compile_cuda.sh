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
object=$(mktemp)
trap 'rm -f "$object"' EXIT
for file in "${kernels[@]}"; do
  echo "nvcc $file"
  nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -Xcompiler -Wall,-Wextra,-Werror \
    -Werror all-warnings -I csrc -I tests/cuda -c "$file" -o "$object"
done
torch=$(python -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])")
for file in "${launchers[@]}"; do
  echo "c++ $file"
  # nvcc hands these to the C++ compiler, with the toolkit's headers.
  nvcc -std=c++20 -Xcompiler -fsyntax-only,-Wall,-Wextra,-Werror -DFMT_HEADER_ONLY=1 \
    -DC10_CUDA_NO_CMAKE_CONFIGURE_FILE -I csrc -isystem "$torch/include" \
    -isystem "$torch/include/torch/csrc/api/include" -c "$file" -o "$object"
done
echo "CUDA: ${#kernels[@]} kernel files and ${#launchers[@]} launching files compiled"
