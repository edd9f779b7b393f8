#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace mistral_ext::ops {

// Rotary position embedding of query and key in one call, half-split layout: the pair of element i
// is element i + head_dim/2 (Su et al. 2021, "RoFormer", arXiv 2104.09864; the layout is Hugging
// Face's rotate_half). For the angle of (position, i), taken from the table in fp32:
//   y[i]              = x[i] cos - x[i + head_dim/2] sin
//   y[i + head_dim/2] = x[i + head_dim/2] cos + x[i] sin
// computed in fp32 (fp64 for fp64) and rounded once.
//   query: [batch, seq, heads, head_dim], key: [batch, seq, kv_heads, head_dim]; head_dim even, one
//     floating dtype, any strides.
//   positions: int64 [batch, seq] or [1, seq]; rows of the table. On CPU an index outside it is a
//     ValueError; on CUDA, where looking would wait for the device, the token becomes NaN.
//   cos_sin: fp32 [table, head_dim]: head_dim/2 cosines, then head_dim/2 sines, with the rope
//     type's attention factor already multiplied in.
//   query_scale: fp32 [batch, seq] or [1, seq], multiplies the rotated query (Ministral 3's scale
//     by position), or none.
//   Returns (query, key), contiguous, of the same shapes and dtype.
// Differentiable in query and key.
std::tuple<at::Tensor, at::Tensor> rotary_embedding(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale = std::nullopt);

// The transpose of the rotation: (grad_query, grad_key) with respect to the inputs.
std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward(
    const at::Tensor& grad_query,
    const at::Tensor& grad_key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale = std::nullopt);

// The same in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
std::tuple<at::Tensor, at::Tensor> rotary_embedding_reference(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale = std::nullopt);
std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward_reference(
    const at::Tensor& grad_query,
    const at::Tensor& grad_key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale = std::nullopt);

// What every backend, Meta included, calls first. `name` is the operator the message speaks of.
void check_rotary_embedding(const char* name,
                            const at::Tensor& query,
                            const at::Tensor& key,
                            const at::Tensor& positions,
                            const at::Tensor& cos_sin,
                            const std::optional<at::Tensor>& query_scale);

}  // namespace mistral_ext::ops
