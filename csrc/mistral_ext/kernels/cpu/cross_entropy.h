#pragma once

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {

// T is float, double, bfloat16 or float16; arithmetic, and Loss, is float (double for double).
//
// cross_entropy: losses[r] = log(sum(e^logits[r])) - logits[r][labels[r]], for rows rows of
//   vocab_size elements; row r of logits starts at logits + r * stride. A row whose label is
//   ignore_index has loss 0; every other label is in [0, vocab_size).
// cross_entropy_gradient: the same for rows that lie one after another, none of them ignored, and
//   gradient[r] = scale * (softmax(logits[r]) - onehot(labels[r])); it may be the logits' array.
#define MISTRAL_EXT_DECLARE(LEVEL)                   \
  namespace LEVEL {                                  \
  template <typename T, typename Loss>               \
  void cross_entropy(const T* logits,                \
                     int64_t stride,                 \
                     const int64_t* labels,          \
                     int64_t ignore_index,           \
                     Loss* losses,                   \
                     int64_t rows,                   \
                     int64_t vocab_size);            \
  template <typename T, typename Loss>               \
  void cross_entropy_gradient(const T* logits,       \
                              const int64_t* labels, \
                              Loss scale,            \
                              T* gradient,           \
                              Loss* losses,          \
                              int64_t rows,          \
                              int64_t vocab_size);   \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE)
#undef MISTRAL_EXT_DECLARE

}  // namespace mistral_ext::kernels::cpu
