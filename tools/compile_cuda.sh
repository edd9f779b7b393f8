#!/usr/bin/env bash
# Compiles every .cu file where there is an nvcc, with or without a torch that has CUDA: a kernel's
# file includes no torch. Says so where there is nothing to compile, or nothing to compile with.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files 'csrc/*.cu')
if [ ${#files[@]} -eq 0 ]; then
  echo "CUDA: the tree has no .cu file: nothing to compile"
  exit 0
fi
if ! command -v nvcc > /dev/null; then
  echo "CUDA: no nvcc on this machine: ${#files[@]} .cu files not compiled"
  exit 0
fi
torch=$(python -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])")
includes=(-I csrc -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include")
for file in "${files[@]}"; do
  echo "nvcc $file"
  nvcc -std=c++20 -arch=sm_90 "${includes[@]}" -c "$file" -o /dev/null
done
echo "CUDA: ${#files[@]} .cu files compiled"
