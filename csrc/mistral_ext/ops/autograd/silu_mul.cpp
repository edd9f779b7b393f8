#include "mistral_ext/ops/silu_mul.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mistral_ext/ops/autograd/needs_autograd.h"

namespace mistral_ext::ops {
namespace {

class SiluMul : public torch::autograd::Function<SiluMul> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx,
                            const at::Tensor& gate,
                            const at::Tensor& up) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({gate, up});
    return silu_mul(gate, up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [grad_gate, grad_up] = silu_mul_backward(grads[0], saved[0], saved[1]);
    return {grad_gate, grad_up};
  }
};

at::Tensor silu_mul_autograd(const at::Tensor& gate, const at::Tensor& up) {
  if (needs_autograd(gate, up)) return SiluMul::apply(gate, up);
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return silu_mul(gate, up);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("silu_mul", &silu_mul_autograd);
  m.impl("silu_mul_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mistral_ext::ops
