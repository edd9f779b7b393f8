#pragma once

#include <ATen/core/Tensor.h>

namespace mistral_ext::ops {

// sum over the rows of log(sum(e^logits)) - logits[label], the cross-entropy of softmax(logits) in
// nats, in fp32 (fp64 for fp64) without a copy of the logits in it.
//   logits: [n, vocab_size], floating point, any strides.
//   labels: int64 [n], in [0, vocab_size), or ignore_index: such a row adds nothing.
//   Returns a scalar. Without rows, 0.
// Throws ValueError where a shape, dtype or device does not fit, IndexError where a label does not,
// as torch's. Not differentiable: training goes through linear_cross_entropy.
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels, int64_t ignore_index);

// The same in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
at::Tensor cross_entropy_reference(const at::Tensor& logits,
                                   const at::Tensor& labels,
                                   int64_t ignore_index);

// The loss of each row, [n], for contiguous logits and labels that are all in [0, vocab_size).
// Where `gradient` is defined, its gradient, scale * (softmax(logits) - onehot(label)), is written
// there: contiguous, of the logits' shape and dtype, and maybe the logits themselves. `scale` is a
// scalar in the accumulation dtype; 1 where it is undefined.
at::Tensor row_losses_reference(const at::Tensor& logits,
                                const at::Tensor& labels,
                                const at::Tensor& gradient,
                                const at::Tensor& scale);

// What every backend, Meta included, calls first.
void check_cross_entropy(const at::Tensor& logits, const at::Tensor& labels);

// That labels, none of them ignored, are in [0, vocab_size): IndexError where one is not. Looks at
// the values: not for Meta.
void check_label_range(const char* op, const at::Tensor& labels, int64_t vocab_size);

// That labels are int64 [rows] on x's device.
void check_labels(const char* op,
                  const at::Tensor& labels,
                  const char* x_argument,
                  const at::Tensor& x);

}  // namespace mistral_ext::ops
