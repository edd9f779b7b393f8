#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace mistral_ext::ops {

// Whether the kernel for one query a sequence computes this attention.
bool decode_attention_serves(const at::Tensor& query,
                             const at::Tensor& key,
                             const std::optional<at::Tensor>& mask,
                             const std::optional<at::Tensor>& sequence_ids);

// attention (ops/attention.h) of arguments that it serves, which have been checked.
std::tuple<at::Tensor, at::Tensor> decode_attention(const at::Tensor& query,
                                                    const at::Tensor& key,
                                                    const at::Tensor& value,
                                                    double scale,
                                                    int64_t sliding_window,
                                                    const std::optional<at::Tensor>& mask);

}  // namespace mistral_ext::ops
