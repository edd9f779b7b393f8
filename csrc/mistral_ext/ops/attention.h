#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace mistral_ext::ops {

// output = softmax(scale * query key^T, over the visible keys) value, with the softmax in fp32
// (fp64 for fp64) by the online rule, so that no [query_len, key_len] matrix is ever held (Dao et
// al. 2022, "FlashAttention", arXiv 2205.14135).
//   query: [batch, query_len, heads, head_dim], key: [batch, key_len, kv_heads, head_dim],
//   value: [batch, key_len, kv_heads, head_dim]; kv_heads divides heads, and query head h reads key
//     head h / (heads / kv_heads). One floating dtype and device; any strides.
//   query_len <= key_len; query i stands at key slot key_len - query_len + i (bottom-right
//     aligned). The key at slot j is visible to the query at slot s where all of these hold:
//     is_causal:          j <= s
//     sliding_window > 0: j > s - sliding_window         (itself included; 0 is full attention)
//     mask [batch|1, key_len]: bool, or integer (nonzero is visible)
//     mask [batch|1, heads|1, query_len|1, key_len|1]: bool (true is visible), or floating: added
//       to the scaled scores, with -inf (or the mask dtype's lowest value) hiding a key. It gets no
//       gradient.
//     sequence_ids [batch|1, key_len], int64: sequence_ids[j] == sequence_ids[s] (packed sequences)
//   Returns (output, logsumexp): output [batch, query_len, heads, head_dim], contiguous, query's
//   dtype; logsumexp [batch, heads, query_len], fp32 (fp64 for fp64), of the scaled scores, -inf
//   for a row with no visible key. Such a row's output is 0, and so are its gradients; never NaN.
// Throws ValueError where a shape, dtype or device does not fit. Differentiable in query, key,
// value (not through logsumexp).
std::tuple<at::Tensor, at::Tensor> attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    double scale,
    bool is_causal = true,
    int64_t sliding_window = 0,
    const std::optional<at::Tensor>& mask = std::nullopt,
    const std::optional<at::Tensor>& sequence_ids = std::nullopt);

// Returns (grad_query, grad_key, grad_value); output and logsumexp are what attention returned.
std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward(
    const at::Tensor& grad_output,
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& output,
    const at::Tensor& logsumexp,
    double scale,
    bool is_causal = true,
    int64_t sliding_window = 0,
    const std::optional<at::Tensor>& mask = std::nullopt,
    const std::optional<at::Tensor>& sequence_ids = std::nullopt);

// What every backend, Meta included, calls first. `name` is the operator the message speaks of.
void check_attention(const char* name,
                     const at::Tensor& query,
                     const at::Tensor& key,
                     const at::Tensor& value,
                     double scale,
                     bool is_causal,
                     int64_t sliding_window,
                     const std::optional<at::Tensor>& mask,
                     const std::optional<at::Tensor>& sequence_ids);
void check_attention_backward(const at::Tensor& grad_output,
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
