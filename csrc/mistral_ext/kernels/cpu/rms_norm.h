#pragma once

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {

// T is float, double, bfloat16 or float16; arithmetic is in float (double for double).
//
// rms_norm: y[r] = round(x[r] / sqrt(mean(x[r]^2) + eps)) * weight, for rows rows of hidden
//   elements; row r of x starts at x + r * x_stride, y's rows lie one after another.
// add_rms_norm: the same of sum[r] = round(x[r] + residual[r]), which is written too.
// rms_norm_backward: grad_x[r], and grad_weight[i] += the sum over the rows. grad_sum, where it is
//   not null, is added to grad_x. All rows lie one after another.
#define MISTRAL_EXT_DECLARE(LEVEL)                 \
  namespace LEVEL {                                \
  template <typename T>                            \
  void rms_norm(const T* x,                        \
                int64_t x_stride,                  \
                const T* weight,                   \
                T* y,                              \
                int64_t rows,                      \
                int64_t hidden,                    \
                double eps);                       \
  template <typename T>                            \
  void add_rms_norm(const T* x,                    \
                    int64_t x_stride,              \
                    const T* residual,             \
                    int64_t residual_stride,       \
                    const T* weight,               \
                    T* y,                          \
                    T* sum,                        \
                    int64_t rows,                  \
                    int64_t hidden,                \
                    double eps);                   \
  template <typename T, typename Accumulator>      \
  void rms_norm_backward(const T* grad_y,          \
                         const T* grad_sum,        \
                         const T* x,               \
                         const T* weight,          \
                         T* grad_x,                \
                         Accumulator* grad_weight, \
                         int64_t rows,             \
                         int64_t hidden,           \
                         double eps);              \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE)
#undef MISTRAL_EXT_DECLARE

}  // namespace mistral_ext::kernels::cpu
