#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <algorithm>

#include "mistral_ext/ops/autograd/needs_autograd.h"
#include "mistral_ext/ops/cpu/linear_few_rows.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

// Whether the dispatcher would do nothing but call the CPU kernel: no lazy negation, no tensor of
// Python's or of a transform.
bool is_plain_cpu(const at::Tensor& x) {
  constexpr c10::DispatchKeySet kPassed =
      c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;
  return x.key_set() - kPassed == c10::DispatchKeySet(c10::DispatchKey::CPU);
}

bool can_share_a_region(const at::Tensor& x, at::ArrayRef<at::Tensor> weights) {
  return is_plain_cpu(x) && !c10::impl::TorchDispatchModeTLS::any_modes_set() &&
         std::all_of(weights.begin(), weights.end(), [&](const at::Tensor& weight) {
           return is_plain_cpu(weight) && !needs_autograd(x, weight) && has_few_rows(x, weight);
         });
}

}  // namespace

std::vector<at::Tensor> linear_many(const at::Tensor& x, at::ArrayRef<at::Tensor> weights) {
  for (const auto& weight : weights) check_linear(x, weight);
  std::vector<at::Tensor> ys(weights.size());
  if (can_share_a_region(x, weights)) {
    linear_few_rows(x, weights, ys);
  } else {
    for (size_t i = 0; i < weights.size(); ++i) ys[i] = ops::linear(x, weights[i]);
  }
  return ys;
}

}  // namespace mistral_ext::ops
