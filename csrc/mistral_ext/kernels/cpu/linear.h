#pragma once

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {

// A product of few rows with a weight that is read once, at the speed of memory. T is float,
// bfloat16 or float16; sums are in float. An output's sum is taken in an order that depends on
// in_features alone: neither on the number of rows nor on the weight rows beside it.
//
// pack_linear: x's rows, row m starting at x + m * x_stride, in the order linear_band reads them.
//   packed: linear_packed_floats(rows, in_features) floats, 64-byte aligned.
// linear_band: y[m * y_stride + o] = sum over i of x[m][i] weight[o * weight_stride + i], for every
//   row m and o in [begin, end).
#define MISTRAL_EXT_DECLARE(LEVEL)                                                     \
  namespace LEVEL {                                                                    \
  template <typename T>                                                                \
  void pack_linear(                                                                    \
      const T* x, int64_t x_stride, int64_t rows, int64_t in_features, float* packed); \
  template <typename T>                                                                \
  void linear_band(const float* packed,                                                \
                   int64_t rows,                                                       \
                   int64_t in_features,                                                \
                   const T* weight,                                                    \
                   int64_t weight_stride,                                              \
                   T* y,                                                               \
                   int64_t y_stride,                                                   \
                   int64_t begin,                                                      \
                   int64_t end);                                                       \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE)
#undef MISTRAL_EXT_DECLARE

// Enough for any level: each row is padded with zeros to a multiple of the widest step, 32
// elements.
constexpr int64_t linear_packed_floats(int64_t rows, int64_t in_features) {
  return rows * ((in_features + 31) / 32 * 32);
}

}  // namespace mistral_ext::kernels::cpu
