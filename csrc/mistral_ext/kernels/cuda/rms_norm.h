#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mistral_ext::kernels::cuda {

// T is float, double, bfloat16 or float16; arithmetic is in float (double for double). A row's
// result does not depend on the rows beside it. Each function returns what its launch returned.

template <typename T>
struct RmsNorm {
  const T* x;  // row r starts at x + r * x_stride
  int64_t x_stride;
  const T* residual;  // null: none
  int64_t residual_stride;
  const T* weight;  // [hidden]
  T* y;             // [rows, hidden]
  T* sum;           // [rows, hidden]; with a residual only
  int64_t rows;
  int64_t hidden;
  double eps;
};

// s = x, or sum = round(x + residual); y = round(s / sqrt(mean(s^2) + eps)) * weight.
template <typename T>
cudaError_t rms_norm(const RmsNorm<T>& args, cudaStream_t stream);

// Rows that share one partial sum of the weight's gradient: fixed, so that the order is.
inline constexpr int64_t kNormGradientRows = 64;

template <typename T, typename Accumulator>
struct RmsNormBackward {
  const T* grad_y;    // [rows, hidden], like all that follow but the weight
  const T* grad_sum;  // added to grad_x; null: none
  const T* x;
  const T* weight;  // [hidden]
  T* grad_x;
  Accumulator* grad_weight;  // [ceil(rows / kNormGradientRows), hidden]: partial sums
  Accumulator* scales;       // [rows], room to work in
  int64_t rows;
  int64_t hidden;
  double eps;
};

template <typename T, typename Accumulator>
cudaError_t rms_norm_backward(const RmsNormBackward<T, Accumulator>& args, cudaStream_t stream);

}  // namespace mistral_ext::kernels::cuda
