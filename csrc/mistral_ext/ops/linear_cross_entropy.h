#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace mistral_ext::ops {

// cross_entropy(hidden weight^T, labels): the language-model head and its loss in one, in chunks of
// rows, so that the logits [n, vocab_size] of many rows are never there whole.
//   hidden: [n, hidden_size], weight: [vocab_size, hidden_size]; one floating dtype and device, any
//     strides.
//   labels: int64 [n], in [0, vocab_size), or ignore_index: such a row adds nothing and costs
//     nothing.
//   Returns the sum over the rows, a scalar in fp32 (fp64 for fp64); without rows, 0.
// Throws ValueError where a shape, dtype or device does not fit, IndexError where a label does not,
// as torch's. Differentiable in hidden and weight, once. Where a gradient is wanted it is computed
// along with the loss, chunk by chunk, and kept for the backward, which only multiplies it: the
// product with the weight is made once. For few rows it is the logits that are kept, see
// linear_cross_entropy_logits.h.
at::Tensor linear_cross_entropy(const at::Tensor& hidden,
                                const at::Tensor& weight,
                                const at::Tensor& labels,
                                int64_t ignore_index);

// Returns (loss, gradient of hidden, gradient of weight): the gradients of the sum, each empty, of
// shape [0], where it is not asked for. The weight's is summed over the chunks, and returned, in
// fp32 (fp64 for fp64).
std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_gradients(
    const at::Tensor& hidden,
    const at::Tensor& weight,
    const at::Tensor& labels,
    int64_t ignore_index,
    bool for_hidden,
    bool for_weight);

// (grad_loss * gradient of hidden, grad_loss * gradient of weight), of the dtype of hidden and
// weight; grad_loss is a scalar. An empty gradient stays empty.
std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_backward(const at::Tensor& grad_loss,
                                                                 const at::Tensor& hidden,
                                                                 const at::Tensor& weight,
                                                                 const at::Tensor& hidden_gradient,
                                                                 const at::Tensor& weight_gradient);

// The loss of each row as row_losses_reference.
using RowLosses = at::Tensor(const at::Tensor& logits,
                             const at::Tensor& labels,
                             const at::Tensor& gradient,
                             const at::Tensor& scale);

// linear_cross_entropy_gradients, with the rows' softmax by `row_losses`.
std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_in_chunks(
    const at::Tensor& hidden,
    const at::Tensor& weight,
    const at::Tensor& labels,
    int64_t ignore_index,
    bool for_hidden,
    bool for_weight,
    RowLosses* row_losses);

// What every backend, Meta included, calls first.
void check_linear_cross_entropy(const at::Tensor& hidden,
                                const at::Tensor& weight,
                                const at::Tensor& labels);
void check_grad_loss(const char* op, const at::Tensor& grad_loss);

}  // namespace mistral_ext::ops
