#include "mistral_ext/ops/add_rms_norm.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mistral_ext/ops/autograd/needs_autograd.h"

namespace mistral_ext::ops {
namespace {

// Saves the sum, which is an output that the model keeps anyway: x and residual need not live on.
class AddRmsNorm : public torch::autograd::Function<AddRmsNorm> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& x,
                                                const at::Tensor& residual,
                                                const at::Tensor& weight,
                                                double eps) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [y, sum] = add_rms_norm(x, residual, weight, eps);
    ctx->save_for_backward({sum, weight});
    ctx->saved_data["eps"] = eps;
    return {y, sum};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [grad_x, grad_weight] = add_rms_norm_backward(
        grads[0], grads[1], saved[0], saved[1], ctx->saved_data["eps"].toDouble());
    return {grad_x, grad_x, grad_weight, at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor> add_rms_norm_autograd(const at::Tensor& x,
                                                         const at::Tensor& residual,
                                                         const at::Tensor& weight,
                                                         double eps) {
  if (needs_autograd(x, residual, weight)) {
    const auto outputs = AddRmsNorm::apply(x, residual, weight, eps);
    return {outputs[0], outputs[1]};
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return add_rms_norm(x, residual, weight, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("add_rms_norm", &add_rms_norm_autograd);
  m.impl("add_rms_norm_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mistral_ext::ops
