#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "mistral_ext/ops/linear_cross_entropy.h"

namespace mistral_ext::ops {

// linear_cross_entropy for few rows under autograd: it keeps the logits instead of the weight's
// gradient, and both gradients are products of the backward. For 16 rows of a head [131072, 5120]
// in bf16 that is 4 MiB instead of 2.5 GiB.

// Whether the logits take less memory than the gradient of the weight, which the other way keeps in
// the accumulation dtype. Counted twice: in the backward their gradient lies beside them. A frozen
// weight leaves nothing to save: the other way then keeps the gradient of hidden alone.
// It saves time as well: the weight's gradient is written once, instead of being set to 0, added to
// and scaled.
bool keeps_logits(const at::Tensor& hidden, const at::Tensor& weight);

// Returns (loss, logits). logits: [n, vocab_size], contiguous, of hidden's dtype: those of the rows
// whose label is not ignore_index, one after another from the first on. What follows them is not
// written, and takes no memory where the system gives it on first use.
std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_logits(const at::Tensor& hidden,
                                                               const at::Tensor& weight,
                                                               const at::Tensor& labels,
                                                               int64_t ignore_index);

// (grad_loss * gradient of hidden, grad_loss * gradient of weight), of the dtype of hidden and
// weight, each empty, of shape [0], where it is not asked for. grad_loss is a scalar; logits are
// what the forward returned.
std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_logits_backward(const at::Tensor& grad_loss,
                                                                        const at::Tensor& hidden,
                                                                        const at::Tensor& weight,
                                                                        const at::Tensor& labels,
                                                                        const at::Tensor& logits,
                                                                        int64_t ignore_index,
                                                                        bool for_hidden,
                                                                        bool for_weight);

// The two with the rows' softmax by `row_losses`.
std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_logits_by(RowLosses* row_losses,
                                                                  const at::Tensor& hidden,
                                                                  const at::Tensor& weight,
                                                                  const at::Tensor& labels,
                                                                  int64_t ignore_index);
std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_logits_backward_by(
    RowLosses* row_losses,
    const at::Tensor& grad_loss,
    const at::Tensor& hidden,
    const at::Tensor& weight,
    const at::Tensor& labels,
    const at::Tensor& logits,
    int64_t ignore_index,
    bool for_hidden,
    bool for_weight);

}  // namespace mistral_ext::ops
