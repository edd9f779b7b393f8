#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace mistral_ext::ops {

// attention and attention_backward (ops/attention.h) in plain ATen, checks included: also for a
// backend that hands a dtype on.
std::tuple<at::Tensor, at::Tensor> attention_reference(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    double scale,
    bool is_causal,
    int64_t sliding_window,
    const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& sequence_ids);
std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward_reference(
    const at::Tensor& grad_output,
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& output,
    const at::Tensor& logsumexp,
    double scale,
    bool is_causal,
    int64_t sliding_window,
    const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& sequence_ids);

}  // namespace mistral_ext::ops
