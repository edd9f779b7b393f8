#include "mistral_ext/ops/linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mistral_ext/ops/autograd/needs_autograd.h"

namespace mistral_ext::ops {
namespace {

class Linear : public torch::autograd::Function<Linear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& weight) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x, weight});
    return ops::linear(x, weight);
  }

  // A frozen weight (adapters) or an input without a gradient costs no product of its own.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    if (!ctx->needs_input_grad(1)) return {ops::linear(grads[0], saved[1].t()), at::Tensor()};
    if (!ctx->needs_input_grad(0)) {
      const auto rows = [](const at::Tensor& t) {
        return t.dim() > 1 ? t.flatten(0, -2) : t.unsqueeze(0);
      };
      return {at::Tensor(), ops::linear(rows(grads[0]).t(), rows(x).t())};
    }
    const auto [grad_x, grad_weight] = linear_backward(grads[0], x, saved[1]);
    return {grad_x, grad_weight};
  }
};

at::Tensor linear_autograd(const at::Tensor& x, const at::Tensor& weight) {
  if (needs_autograd(x, weight)) return Linear::apply(x, weight);
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return ops::linear(x, weight);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("linear", &linear_autograd);
  m.impl("linear_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mistral_ext::ops
