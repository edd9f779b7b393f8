#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

enum class LinearEpilogue {
  kStore,   // y of every matrix = x W^T
  kAdd,     // y of the one matrix = residual + x W^T, rounded once
  kSwiGlu,  // y of the first = silu(x W_0^T) * (x W_1^T), rounded once: gate and up
};

template <typename T>
struct LinearMatrix {
  const T* weight;  // [out_features, in_features], its rows side by side
  int64_t out_features;
  T* y;  // row r starts at y + r * y_stride
  int64_t y_stride;
};

inline constexpr int kFewRows = 8;
inline constexpr int kFewMatrices = 3;
inline constexpr int64_t kFewRowsUnit = 8;  // in_features and strides are multiples of it
inline constexpr int64_t kFewRowsMostFeatures = INT64_C(1) << 17;  // in_features: sums have room

// Products of a few rows, as a decode step makes them: the time is that of reading the weights,
// each byte of them once. Several matrices of the same x are one launch.
template <typename T>
struct LinearFewRows {
  const T* x;  // row r starts at x + r * x_stride
  int64_t x_stride;
  const T* norm_weight;  // [in_features]: x is RMS-normalised first, as rms_norm does; null: not
  float eps;
  LinearMatrix<T> matrices[kFewMatrices];
  int count;
  const T* residual;  // kAdd; may be y
  int64_t residual_stride;
  int64_t rows;         // 1 to kFewRows
  int64_t in_features;  // up to kFewRowsMostFeatures
  LinearEpilogue epilogue;
};

// T is bfloat16 or float16; x, norm_weight and the weights begin on 16 bytes. Sums are in fp32, in
// an order that depends on in_features alone: a row's result does not depend on the rows beside it.
// The weights, norm_weight too, are read before the kernel ahead has ended where the launch is a
// dependent one. Returns what the launch returned; cudaErrorInvalidValue where
// in_features is greater.
template <typename T>
cudaError_t linear_few_rows(const LinearFewRows<T>& args, const StepLaunch& launch);

}  // namespace mistral_ext::kernels::cuda
