// Under autocast the operators compute as they do without it: in the dtype of their inputs. What
// they are made of (a product in a reference, say) would otherwise be cast on its own.

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/stack.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

namespace mistral_ext::ops {
namespace {

constexpr const char* kOperators[] = {"rms_norm",
                                      "rms_norm_backward",
                                      "add_rms_norm",
                                      "add_rms_norm_backward",
                                      "rotary_embedding",
                                      "rotary_embedding_backward",
                                      "silu_mul",
                                      "silu_mul_backward",
                                      "attention",
                                      "attention_backward",
                                      "kv_cache_update_",
                                      "kv_cache_update_backward",
                                      "linear",
                                      "linear_backward",
                                      "cross_entropy",
                                      "linear_cross_entropy",
                                      "linear_cross_entropy_gradients",
                                      "linear_cross_entropy_backward",
                                      "linear_cross_entropy_logits",
                                      "linear_cross_entropy_logits_backward"};

void without_autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard guard(c10::autocast_dispatch_keyset);
  op.callBoxed(stack);
}

void register_all(torch::Library& m) {
  for (const char* name : kOperators) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&without_autocast>());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, AutocastCPU, m) { register_all(m); }
TORCH_LIBRARY_IMPL(mistral_ext, AutocastCUDA, m) { register_all(m); }

}  // namespace mistral_ext::ops
