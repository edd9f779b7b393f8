#include "mistral_ext/ops/linear_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mistral_ext/ops/autograd/needs_autograd.h"
#include "mistral_ext/ops/linear_cross_entropy_logits.h"

namespace mistral_ext::ops {
namespace {

// Keeps the gradients of the sum.
class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx,
                            const at::Tensor& hidden,
                            const at::Tensor& weight,
                            const at::Tensor& labels,
                            int64_t ignore_index) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [loss, hidden_gradient, weight_gradient] = linear_cross_entropy_gradients(
        hidden, weight, labels, ignore_index, hidden.requires_grad(), weight.requires_grad());
    ctx->save_for_backward(
        {hidden, weight, hidden_gradient, weight_gradient, labels.ne(ignore_index).any()});
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    // The mean over no rows is 0 / 0: what comes in is then not finite, and not 0 times the zeros.
    const auto grad_loss = at::where(saved[4], grads[0], at::zeros_like(grads[0]));
    const auto none = saved[2].new_empty({0});
    // Through an operator, so that a second derivative is an error and not a zero.
    const auto [grad_hidden, grad_weight] =
        linear_cross_entropy_backward(grad_loss,
                                      saved[0],
                                      saved[1],
                                      ctx->needs_input_grad(0) ? saved[2] : none,
                                      ctx->needs_input_grad(1) ? saved[3] : none);
    return {ctx->needs_input_grad(0) ? grad_hidden : at::Tensor(),
            ctx->needs_input_grad(1) ? grad_weight : at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

// Keeps the logits.
class LinearCrossEntropyLogits : public torch::autograd::Function<LinearCrossEntropyLogits> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx,
                            const at::Tensor& hidden,
                            const at::Tensor& weight,
                            const at::Tensor& labels,
                            int64_t ignore_index) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [loss, logits] = linear_cross_entropy_logits(hidden, weight, labels, ignore_index);
    ctx->save_for_backward({hidden, weight, labels, logits});
    ctx->saved_data["ignore_index"] = ignore_index;
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const bool for_hidden = ctx->needs_input_grad(0);
    const bool for_weight = ctx->needs_input_grad(1);
    const auto [grad_hidden, grad_weight] =
        linear_cross_entropy_logits_backward(grads[0],
                                             saved[0],
                                             saved[1],
                                             saved[2],
                                             saved[3],
                                             ctx->saved_data["ignore_index"].toInt(),
                                             for_hidden,
                                             for_weight);
    return {for_hidden ? grad_hidden : at::Tensor(),
            for_weight ? grad_weight : at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

at::Tensor linear_cross_entropy_autograd(const at::Tensor& hidden,
                                         const at::Tensor& weight,
                                         const at::Tensor& labels,
                                         int64_t ignore_index) {
  if (needs_autograd(hidden, weight)) {
    check_linear_cross_entropy(hidden, weight, labels);
    if (keeps_logits(hidden, weight)) {
      return LinearCrossEntropyLogits::apply(hidden, weight, labels, ignore_index);
    }
    return LinearCrossEntropy::apply(hidden, weight, labels, ignore_index);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return linear_cross_entropy(hidden, weight, labels, ignore_index);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("linear_cross_entropy", &linear_cross_entropy_autograd);
  m.impl("linear_cross_entropy_gradients", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear_cross_entropy_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear_cross_entropy_logits", torch::autograd::autogradNotImplementedFallback());
  m.impl("linear_cross_entropy_logits_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("cross_entropy", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mistral_ext::ops
