#pragma once

#include <optional>

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/ops/cpu/dispatch.h"

namespace mistral_ext::ops {

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
