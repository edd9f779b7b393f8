#pragma once

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {

// T is float, bfloat16 or float16; arithmetic is in float.
//
// out[i] = inputs[0][i] + inputs[1][i] + ... for i in [0, n), in this order, rounded once. inputs:
// `count` > 0 arrays of T, of which `out` may be one.
#define MISTRAL_EXT_DECLARE(LEVEL)                                              \
  namespace LEVEL {                                                             \
  template <typename T>                                                         \
  void sum_arrays(const void* const* inputs, int64_t count, T* out, int64_t n); \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE)
#undef MISTRAL_EXT_DECLARE

}  // namespace mistral_ext::kernels::cpu
