#pragma once

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {

// T is float, double, bfloat16 or float16; arithmetic is in float (double for double).
//
// silu_mul: y[i] = gate[i] / (1 + e^-gate[i]) * up[i] for i in [0, n).
// silu_mul_backward: the gradients of gate and up.
#define MISTRAL_EXT_DECLARE(LEVEL)                                                       \
  namespace LEVEL {                                                                      \
  template <typename T>                                                                  \
  void silu_mul(const T* gate, const T* up, T* y, int64_t n);                            \
  template <typename T>                                                                  \
  void silu_mul_backward(                                                                \
      const T* grad_y, const T* gate, const T* up, T* grad_gate, T* grad_up, int64_t n); \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE)
#undef MISTRAL_EXT_DECLARE

}  // namespace mistral_ext::kernels::cpu
