#include "mistral_ext/ops/rotary_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
namespace {

void check_by_position(const char* name,
                       const char* argument,
                       at::ScalarType dtype,
                       const at::Tensor& x,
                       const at::Tensor& query) {
  MISTRAL_EXT_CHECK(x.scalar_type() == dtype,
                    "{}: {} must be {}, got {}",
                    name,
                    argument,
                    c10::toString(dtype),
                    c10::toString(x.scalar_type()));
  MISTRAL_EXT_CHECK(x.dim() == 2 && x.sym_size(1) == query.sym_size(1) &&
                        (x.sym_size(0) == query.sym_size(0) || x.sym_size(0) == 1),
                    "{}: {} must have shape [{} or 1, {}], got {}",
                    name,
                    argument,
                    c10::str(query.sym_size(0)),
                    c10::str(query.sym_size(1)),
                    c10::str(x.sym_sizes()));
  check_device(name, argument, x, "query", query);
}

}  // namespace

void check_rotary_embedding(const char* name,
                            const at::Tensor& query,
                            const at::Tensor& key,
                            const at::Tensor& positions,
                            const at::Tensor& cos_sin,
                            const std::optional<at::Tensor>& query_scale) {
  check_float(name, "query", query);
  MISTRAL_EXT_CHECK(query.dim() == 4,
                    "{}: query must have shape [batch, seq, heads, head_dim], got {}",
                    name,
                    c10::str(query.sym_sizes()));
  MISTRAL_EXT_CHECK(query.sym_size(3) % 2 == 0,
                    "{}: query must have an even head_dim, got {}",
                    name,
                    c10::str(query.sym_sizes()));
  MISTRAL_EXT_CHECK(key.dim() == 4 && key.sym_size(0) == query.sym_size(0) &&
                        key.sym_size(1) == query.sym_size(1) &&
                        key.sym_size(3) == query.sym_size(3),
                    "{}: key must have shape [{}, {}, kv_heads, {}], got {}",
                    name,
                    c10::str(query.sym_size(0)),
                    c10::str(query.sym_size(1)),
                    c10::str(query.sym_size(3)),
                    c10::str(key.sym_sizes()));
  check_dtype_and_device(name, "key", key, "query", query);
  check_by_position(name, "positions", at::kLong, positions, query);
  MISTRAL_EXT_CHECK(cos_sin.scalar_type() == at::kFloat,
                    "{}: cos_sin must be Float, got {}",
                    name,
                    c10::toString(cos_sin.scalar_type()));
  MISTRAL_EXT_CHECK(cos_sin.dim() == 2 && cos_sin.sym_size(1) == query.sym_size(3),
                    "{}: cos_sin must have shape [table, {}], got {}",
                    name,
                    c10::str(query.sym_size(3)),
                    c10::str(cos_sin.sym_sizes()));
  check_device(name, "cos_sin", cos_sin, "query", query);
  if (query_scale.has_value()) {
    check_by_position(name, "query_scale", at::kFloat, *query_scale, query);
  }
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding(const at::Tensor& query,
                                                    const at::Tensor& key,
                                                    const at::Tensor& positions,
                                                    const at::Tensor& cos_sin,
                                                    const std::optional<at::Tensor>& query_scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::rotary_embedding", "")
                             .typed<decltype(rotary_embedding)>();
  return op.call(query, key, positions, cos_sin, query_scale);
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward(
    const at::Tensor& grad_query,
    const at::Tensor& grad_key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::rotary_embedding_backward", "")
                             .typed<decltype(rotary_embedding_backward)>();
  return op.call(grad_query, grad_key, positions, cos_sin, query_scale);
}

namespace {

void check_positions(const char* name, const at::Tensor& positions, const at::Tensor& cos_sin) {
  if (positions.numel() == 0) return;
  const auto [least, greatest] = at::aminmax(positions);
  const int64_t low = least.item<int64_t>();
  const int64_t high = greatest.item<int64_t>();
  MISTRAL_EXT_CHECK(low >= 0 && high < cos_sin.size(0),
                    "{}: positions must lie in [0, {}), got {}",
                    name,
                    cos_sin.size(0),
                    low < 0 ? low : high);
}

// x: [batch, seq, heads, head_dim]; cos, sin: [batch|1, seq, 1, head_dim/2] in x's wide dtype.
at::Tensor rotate(const at::Tensor& x,
                  const at::Tensor& cos,
                  const at::Tensor& sin,
                  const at::Tensor& scale) {
  const auto halves = x.to(cos.scalar_type()).tensor_split(2, /*dim=*/-1);
  auto y = at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin},
                   /*dim=*/-1);
  if (scale.defined()) y = y * scale;
  return y.to(x.scalar_type());
}

// sign: +1 rotates by the angles, -1 back: the rotation's transpose.
std::tuple<at::Tensor, at::Tensor> rotate_both(const char* name,
                                               const at::Tensor& query,
                                               const at::Tensor& key,
                                               const at::Tensor& positions,
                                               const at::Tensor& cos_sin,
                                               const std::optional<at::Tensor>& query_scale,
                                               int sign) {
  check_rotary_embedding(name, query, key, positions, cos_sin, query_scale);
  if (positions.is_cpu()) check_positions(name, positions, cos_sin);
  const auto dtype = accumulation_dtype(query);
  const auto rows = cos_sin.index_select(0, positions.reshape(-1)).to(dtype);
  const auto angles = rows.reshape_symint(
      {positions.sym_size(0), positions.sym_size(1), c10::SymInt(1), cos_sin.sym_size(1)});
  const auto cos_and_sin = angles.tensor_split(2, /*dim=*/-1);
  const auto& cos = cos_and_sin[0];
  const auto sin = cos_and_sin[1] * sign;
  at::Tensor scale;
  if (query_scale.has_value()) scale = query_scale->to(dtype).unsqueeze(-1).unsqueeze(-1);
  return {rotate(query, cos, sin, scale), rotate(key, cos, sin, at::Tensor())};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rotary_embedding_reference(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  return rotate_both("rotary_embedding", query, key, positions, cos_sin, query_scale, 1);
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward_reference(
    const at::Tensor& grad_query,
    const at::Tensor& grad_key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  return rotate_both(
      "rotary_embedding_backward", grad_query, grad_key, positions, cos_sin, query_scale, -1);
}

namespace {

std::tuple<at::Tensor, at::Tensor> rotary_embedding_meta(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  check_rotary_embedding("rotary_embedding", query, key, positions, cos_sin, query_scale);
  return {at::empty_symint(query.sym_sizes(), query.options()),
          at::empty_symint(key.sym_sizes(), key.options())};
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward_meta(
    const at::Tensor& grad_query,
    const at::Tensor& grad_key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  check_rotary_embedding(
      "rotary_embedding_backward", grad_query, grad_key, positions, cos_sin, query_scale);
  return {at::empty_symint(grad_query.sym_sizes(), grad_query.options()),
          at::empty_symint(grad_key.sym_sizes(), grad_key.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("rotary_embedding", &rotary_embedding_reference);
  m.impl("rotary_embedding_backward", &rotary_embedding_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("rotary_embedding", &rotary_embedding_meta);
  m.impl("rotary_embedding_backward", &rotary_embedding_backward_meta);
}

}  // namespace mistral_ext::ops
