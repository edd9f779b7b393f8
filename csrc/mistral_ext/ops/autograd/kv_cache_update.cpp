#include "mistral_ext/ops/kv_cache_update.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "mistral_ext/ops/autograd/needs_autograd.h"

namespace mistral_ext::ops {
namespace {

using torch::autograd::variable_list;

// Records that `tokens` have been written into `cache`. One cache a node: autograd allows a node
// that changes a view in place no other output.
class CacheWrite : public torch::autograd::Function<CacheWrite> {
 public:
  static variable_list forward(torch::autograd::AutogradContext* ctx,
                               const at::Tensor& cache,
                               const at::Tensor& tokens,
                               const c10::SymInt& start) {
    ctx->saved_data["start"] = start;
    ctx->saved_data["length"] = tokens.sym_size(1);
    ctx->mark_dirty({cache});
    return {cache};
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, variable_list grads) {
    auto [grad_cache, grad_tokens] = kv_cache_update_backward(
        grads[0], ctx->saved_data["start"].toSymInt(), ctx->saved_data["length"].toSymInt());
    return {grad_cache, grad_tokens, at::Tensor()};
  }
};

void kv_cache_update_autograd_(const at::Tensor& key_cache,
                               const at::Tensor& value_cache,
                               const at::Tensor& key,
                               const at::Tensor& value,
                               c10::SymInt start) {
  const bool key_needs_grad = needs_autograd(key_cache, key);
  const bool value_needs_grad = needs_autograd(value_cache, value);
  torch::autograd::check_inplace(key_cache, key_needs_grad);
  torch::autograd::check_inplace(value_cache, value_needs_grad);
  {
    at::AutoDispatchBelowAutograd below_autograd;
    kv_cache_update_(key_cache, value_cache, key, value, start);
  }
  if (key_needs_grad) CacheWrite::apply(key_cache, key, start);
  if (value_needs_grad) CacheWrite::apply(value_cache, value, start);
}

// Tells autograd that the caches' contents changed, so that a backward that saved the old ones says
// so rather than using the new.
void kv_cache_update_inplace_(const at::Tensor& key_cache,
                              const at::Tensor& value_cache,
                              const at::Tensor& key,
                              const at::Tensor& value,
                              c10::SymInt start) {
  {
    at::AutoDispatchBelowADInplaceOrView below;
    kv_cache_update_(key_cache, value_cache, key, value, std::move(start));
  }
  torch::autograd::increment_version(key_cache);
  torch::autograd::increment_version(value_cache);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Autograd, m) {
  m.impl("kv_cache_update_", &kv_cache_update_autograd_);
  m.impl("kv_cache_update_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(mistral_ext, ADInplaceOrView, m) {
  m.impl("kv_cache_update_", &kv_cache_update_inplace_);
}

}  // namespace mistral_ext::ops
