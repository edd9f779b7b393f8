#pragma once

// The gradients of attention, by blocks as in attention.h. The weights are computed again from the
// logsumexp; two passes, one over queries and one over keys, so that every sum is made by one
// thread in one order.

#include "mistral_ext/kernels/cpu/attention.h"

namespace mistral_ext::kernels::cpu {

struct AttentionBackwardArgs {
  AttentionArgs forward;  // its results unset
  AttentionTensor output, grad_output;
  const float* logsumexp;  // [batch, heads, query_len], contiguous
  float* inner;      // [batch, heads, query_len]: sum(output * grad_output), by attention_inner
  void* grad_query;  // contiguous, of the shape of query
  void* grad_key;    // contiguous, of the shape of key, as is grad_value
  void* grad_value;
};

// Queries whose rows one step of the pass over keys takes.
int64_t attention_step_queries(const AttentionArgs& args);

// Floats of scratch that a thread needs: for units of at most `rows` rows, and for a block of keys.
int64_t attention_backward_query_scratch(int64_t rows, int64_t head_dim);
int64_t attention_backward_key_scratch(const AttentionArgs& args);

#define MISTRAL_EXT_DECLARE_ATTENTION_BACKWARD(level)                                         \
  namespace level {                                                                           \
  /* inner's elements of tokens [begin, end), counted through batch and query_len. */         \
  template <typename T>                                                                       \
  void attention_inner(const AttentionBackwardArgs& args, int64_t begin, int64_t end);        \
  /* grad_query of a unit of AttentionPlan without splits. */                                 \
  template <typename T>                                                                       \
  void attention_backward_query(const AttentionBackwardArgs& args,                            \
                                const AttentionUnit& unit,                                    \
                                float* scratch);                                              \
  /* grad_key and grad_value of the unit's keys, one block of them; its queries are unset. */ \
  template <typename T>                                                                       \
  void attention_backward_key(const AttentionBackwardArgs& args,                              \
                              const AttentionUnit& unit,                                      \
                              float* scratch);                                                \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE_ATTENTION_BACKWARD)
#undef MISTRAL_EXT_DECLARE_ATTENTION_BACKWARD

}  // namespace mistral_ext::kernels::cpu
