#pragma once

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {

// Rotates the heads of one token by the same angles. T is float, double, bfloat16 or float16;
// arithmetic is in float (double for double).
//   x: heads vectors of head_dim elements, head_stride apart; y: the same, one after another.
//   cos_sin: head_dim/2 cosines, then head_dim/2 sines.
//   backward: rotate by the angles' negatives.
//   scale: multiplies the result.
#define MISTRAL_EXT_DECLARE(LEVEL)        \
  namespace LEVEL {                       \
  template <typename T>                   \
  void rotate_heads(const T* x,           \
                    int64_t head_stride,  \
                    T* y,                 \
                    int64_t heads,        \
                    int64_t head_dim,     \
                    const float* cos_sin, \
                    bool backward,        \
                    float scale);         \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE)
#undef MISTRAL_EXT_DECLARE

}  // namespace mistral_ext::kernels::cpu
