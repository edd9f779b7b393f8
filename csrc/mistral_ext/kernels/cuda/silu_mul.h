#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mistral_ext::kernels::cuda {

// T is float, double, bfloat16 or float16; arithmetic is in float (double for double), rounded
// once. Each function returns what its launch returned.

template <typename T>
struct SiluMul {
  const T* gate;  // row r starts at gate + r * gate_stride
  int64_t gate_stride;
  const T* up;
  int64_t up_stride;
  T* y;  // [rows, width]
  int64_t rows;
  int64_t width;
};

// y = gate / (1 + e^-gate) * up
template <typename T>
cudaError_t silu_mul(const SiluMul<T>& args, cudaStream_t stream);

template <typename T>
struct SiluMulBackward {  // all [count]
  const T* grad_y;
  const T* gate;
  const T* up;
  T* grad_gate;
  T* grad_up;
  int64_t count;
};

template <typename T>
cudaError_t silu_mul_backward(const SiluMulBackward<T>& args, cudaStream_t stream);

}  // namespace mistral_ext::kernels::cuda
