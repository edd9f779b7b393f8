#include "mistral_ext/ops/rotary_embedding.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mistral_ext/ops/autograd/needs_autograd.h"

namespace mistral_ext::ops {
namespace {

// Saves only the tables: a rotation's derivative does not depend on what was rotated.
class RotaryEmbedding : public torch::autograd::Function<RotaryEmbedding> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& query,
                                                const at::Tensor& key,
                                                const at::Tensor& positions,
                                                const at::Tensor& cos_sin,
                                                const std::optional<at::Tensor>& query_scale) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({positions, cos_sin, query_scale.value_or(at::Tensor())});
    auto [rotated_query, rotated_key] =
        rotary_embedding(query, key, positions, cos_sin, query_scale);
    return {rotated_query, rotated_key};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto query_scale = saved[2].defined() ? std::optional(saved[2]) : std::nullopt;
    const auto [grad_query, grad_key] =
        rotary_embedding_backward(grads[0], grads[1], saved[0], saved[1], query_scale);
    return {grad_query, grad_key, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor> rotary_embedding_autograd(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  if (needs_autograd(query, key)) {
    const auto outputs = RotaryEmbedding::apply(query, key, positions, cos_sin, query_scale);
    return {outputs[0], outputs[1]};
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return rotary_embedding(query, key, positions, cos_sin, query_scale);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("rotary_embedding", &rotary_embedding_autograd);
  m.impl("rotary_embedding_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mistral_ext::ops
