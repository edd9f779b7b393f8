#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace mistral_ext::ops {

// Whether our kernel of many queries computes this attention. It takes masks of keys and packed
// sequences, and needs no look at them on the host.
bool flash_attention_serves(const at::Tensor& query,
                            const at::Tensor& key,
                            double scale,
                            const std::optional<at::Tensor>& mask);

// attention (ops/attention.h) of arguments that it serves, which have been checked.
std::tuple<at::Tensor, at::Tensor> flash_attention(const at::Tensor& query,
                                                   const at::Tensor& key,
                                                   const at::Tensor& value,
                                                   double scale,
                                                   bool is_causal,
                                                   int64_t sliding_window,
                                                   const std::optional<at::Tensor>& mask,
                                                   const std::optional<at::Tensor>& sequence_ids);

}  // namespace mistral_ext::ops
