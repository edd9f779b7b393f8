#pragma once

#include <optional>

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/ops/cpu/dispatch.h"

namespace mistral_ext::ops {

// x as the kernels read it; `copy` holds a copy where the elements of a head do not lie side by
// side.
kernels::cpu::AttentionTensor describe(const at::Tensor& x, at::Tensor& copy);

// About how many multiplications a forward pass makes.
int64_t forward_products(const kernels::cpu::AttentionArgs& args);

// The kernels' description of one call, and the copies that it points into where a tensor's strides
// or dtype needed one. The arguments have been checked.
class AttentionInput {
  at::Tensor query_copy_, key_copy_, value_copy_, mask_copy_;  // constructed before args

 public:
  AttentionInput(const at::Tensor& query,
                 const at::Tensor& key,
                 const at::Tensor& value,
                 double scale,
                 bool is_causal,
                 int64_t sliding_window,
                 const std::optional<at::Tensor>& mask,
                 const std::optional<at::Tensor>& sequence_ids);

  kernels::cpu::AttentionArgs args;

 private:
  void describe_mask(const at::Tensor& mask);
};

}  // namespace mistral_ext::ops
