#pragma once

// Elements as threads hold them: loads and stores of up to 16 bytes, arithmetic in fp32 or fp64.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "mistral_ext/kernels/types.h"

namespace mistral_ext::kernels::cuda {

// The type arithmetic is done in: float, and double for double.
template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(bfloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ inline float widen(float16 x) { return __half2float(__ushort_as_half(x.bits)); }

// Rounded to nearest, ties to even.
template <typename T>
__device__ T narrow(Accumulator<T> x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline double narrow<double>(double x) {
  return x;
}
template <>
__device__ inline bfloat16 narrow<bfloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
template <>
__device__ inline float16 narrow<float16>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}

// The value as it is once stored.
template <typename T>
__device__ Accumulator<T> rounded(Accumulator<T> x) {
  return widen(narrow<T>(x));
}

// kWidth elements that one load or store moves.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T at[kWidth];
};

// Elements in 16 bytes.
template <typename T>
inline constexpr int kFullWidth = 16 / sizeof(T);

// Whether rows of `length` elements, `strides` apart, can be read 16 bytes at a time.
template <typename T>
inline bool is_aligned(const T* x, int64_t length, auto... strides) {
  constexpr int64_t kWidth = kFullWidth<T>;
  return reinterpret_cast<uintptr_t>(x) % 16 == 0 && length % kWidth == 0 &&
         (... && (strides % kWidth == 0));
}

}  // namespace mistral_ext::kernels::cuda
