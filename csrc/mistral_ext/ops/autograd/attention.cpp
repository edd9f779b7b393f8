#include "mistral_ext/ops/attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/ops/autograd/needs_autograd.h"

namespace mistral_ext::ops {
namespace {

using torch::autograd::variable_list;

at::Tensor or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? *tensor : at::Tensor();
}

std::optional<at::Tensor> or_none(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// Keeps the inputs, the output and one number a row: the weights are computed again from them.
class Attention : public torch::autograd::Function<Attention> {
 public:
  static variable_list forward(torch::autograd::AutogradContext* ctx,
                               const at::Tensor& query,
                               const at::Tensor& key,
                               const at::Tensor& value,
                               double scale,
                               bool is_causal,
                               int64_t sliding_window,
                               const std::optional<at::Tensor>& mask,
                               const std::optional<at::Tensor>& sequence_ids) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [output, logsumexp] =
        attention(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["is_causal"] = is_causal;
    ctx->saved_data["sliding_window"] = sliding_window;
    ctx->save_for_backward(
        {query, key, value, output, logsumexp, or_undefined(mask), or_undefined(sequence_ids)});
    ctx->mark_non_differentiable({logsumexp});
    return {output, logsumexp};
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_query, grad_key, grad_value] =
        attention_backward(grads[0],
                           saved[0],
                           saved[1],
                           saved[2],
                           saved[3],
                           saved[4],
                           ctx->saved_data["scale"].toDouble(),
                           ctx->saved_data["is_causal"].toBool(),
                           ctx->saved_data["sliding_window"].toInt(),
                           or_none(saved[5]),
                           or_none(saved[6]));
    const at::Tensor none;
    return {grad_query, grad_key, grad_value, none, none, none, none, none};
  }
};

std::tuple<at::Tensor, at::Tensor> attention_autograd(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    double scale,
    bool is_causal,
    int64_t sliding_window,
    const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& sequence_ids) {
  MISTRAL_EXT_CHECK(!at::GradMode::is_enabled() || !mask.has_value() || !mask->requires_grad(),
                    "attention: mask must not require gradients, since it gets none; got one that "
                    "does: detach it, or take torch's scaled_dot_product_attention");
  if (!needs_autograd(query, key, value)) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return attention(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  }
  const auto outputs =
      Attention::apply(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  return {outputs[0], outputs[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("attention", &attention_autograd);
  m.impl("attention_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mistral_ext::ops
