#pragma once

#include <ATen/core/Tensor.h>

#include "mistral_ext/parallel/context.h"

namespace mistral_ext::layers {

// ops::linear_cross_entropy with the head's weight spread over the ranks by vocabulary: no rank has
// the logits of another, nor all of its own at once. Of each row the ranks exchange two numbers.
//   hidden: [n, hidden_size], the same on every rank. weight: [vocab_size / ranks, hidden_size].
//   labels: int64 [n], in [0, vocab_size) or ignore_index, the same on every rank.
//   Returns the sum over the rows, a scalar in fp32 (fp64 for fp64), the same on every rank.
// Differentiable in hidden, whose gradient is the same on every rank, and in weight, once. A
// collective: every rank calls it, and its backward. Throws as ops::linear_cross_entropy.
at::Tensor vocab_parallel_cross_entropy(const at::Tensor& hidden,
                                        const at::Tensor& weight,
                                        const at::Tensor& labels,
                                        int64_t ignore_index,
                                        const parallel::Context& context);

}  // namespace mistral_ext::layers
