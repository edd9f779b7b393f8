#include "mistral_ext/ops/attention.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "mistral_ext/core/check.h"

namespace mistral_ext::ops {
namespace {

// Whether a dimension of a mask is `size`, or 1 and so broadcast.
bool fits(const c10::SymInt& given, const c10::SymInt& size) { return given == size || given == 1; }

// `tensor`, named `argument`, lies on query's device with query's dtype and `dim` dimensions.
void check_like_query(const char* name,
                      const char* argument,
                      const at::Tensor& tensor,
                      const at::Tensor& query,
                      int64_t dim) {
  MISTRAL_EXT_CHECK(tensor.dim() == dim,
                    "{}: {} must have {} dimensions, got shape {}",
                    name,
                    argument,
                    dim,
                    c10::str(tensor.sym_sizes()));
  MISTRAL_EXT_CHECK(tensor.scalar_type() == query.scalar_type(),
                    "{}: {} must have query's dtype {}, got {}",
                    name,
                    argument,
                    c10::toString(query.scalar_type()),
                    c10::toString(tensor.scalar_type()));
  MISTRAL_EXT_CHECK(tensor.device() == query.device(),
                    "{}: {} must be on query's device {}, got {}",
                    name,
                    argument,
                    query.device().str(),
                    tensor.device().str());
}

void check_mask(const char* name,
                const at::Tensor& mask,
                const at::Tensor& query,
                const at::Tensor& key) {
  const auto type = mask.scalar_type();
  MISTRAL_EXT_CHECK(mask.device() == query.device(),
                    "{}: mask must be on query's device {}, got {}",
                    name,
                    query.device().str(),
                    mask.device().str());
  if (mask.dim() == 2) {
    MISTRAL_EXT_CHECK(c10::isIntegralType(type, /*includeBool=*/true),
                      "{}: mask of 2 dimensions must be bool or integer, got {}",
                      name,
                      c10::toString(type));
    MISTRAL_EXT_CHECK(
        fits(mask.sym_size(0), query.sym_size(0)) && mask.sym_size(1) == key.sym_size(1),
        "{}: mask of 2 dimensions must have shape [{}, {}], got {}",
        name,
        c10::str(query.sym_size(0)),
        c10::str(key.sym_size(1)),
        c10::str(mask.sym_sizes()));
    return;
  }
  MISTRAL_EXT_CHECK(mask.dim() == 4,
                    "{}: mask must have 2 or 4 dimensions, got shape {}",
                    name,
                    c10::str(mask.sym_sizes()));
  MISTRAL_EXT_CHECK(type == at::kBool || c10::isFloatingType(type),
                    "{}: mask of 4 dimensions must be bool or floating point, got {}",
                    name,
                    c10::toString(type));
  MISTRAL_EXT_CHECK(
      fits(mask.sym_size(0), query.sym_size(0)) && fits(mask.sym_size(1), query.sym_size(2)) &&
          fits(mask.sym_size(2), query.sym_size(1)) && fits(mask.sym_size(3), key.sym_size(1)),
      "{}: mask of 4 dimensions must have shape [{}, {}, {}, {}] or 1 in their place, got {}",
      name,
      c10::str(query.sym_size(0)),
      c10::str(query.sym_size(2)),
      c10::str(query.sym_size(1)),
      c10::str(key.sym_size(1)),
      c10::str(mask.sym_sizes()));
}

}  // namespace

void check_attention(const char* name,
                     const at::Tensor& query,
                     const at::Tensor& key,
                     const at::Tensor& value,
                     double scale,
                     [[maybe_unused]] bool is_causal,
                     int64_t sliding_window,
                     const std::optional<at::Tensor>& mask,
                     const std::optional<at::Tensor>& sequence_ids) {
  MISTRAL_EXT_CHECK(query.dim() == 4,
                    "{}: query must have 4 dimensions, got shape {}",
                    name,
                    c10::str(query.sym_sizes()));
  MISTRAL_EXT_CHECK(query.is_floating_point(),
                    "{}: query must be floating point, got {}",
                    name,
                    c10::toString(query.scalar_type()));
  check_like_query(name, "key", key, query, 4);
  check_like_query(name, "value", value, query, 4);
  MISTRAL_EXT_CHECK(key.sym_size(0) == query.sym_size(0) && key.sym_size(3) == query.sym_size(3),
                    "{}: key must have query's batch {} and head_dim {}, got shape {}",
                    name,
                    c10::str(query.sym_size(0)),
                    c10::str(query.sym_size(3)),
                    c10::str(key.sym_sizes()));
  MISTRAL_EXT_CHECK(key.sym_size(2) > 0 && query.sym_size(2) % key.sym_size(2) == 0,
                    "{}: key must have a number of heads that divides query's {}, got {}",
                    name,
                    c10::str(query.sym_size(2)),
                    c10::str(key.sym_size(2)));
  MISTRAL_EXT_CHECK(key.sym_size(1) >= query.sym_size(1),
                    "{}: key must have at least query's {} tokens, got {}",
                    name,
                    c10::str(query.sym_size(1)),
                    c10::str(key.sym_size(1)));
  MISTRAL_EXT_CHECK(value.sym_sizes() == key.sym_sizes(),
                    "{}: value must have key's shape {}, got {}",
                    name,
                    c10::str(key.sym_sizes()),
                    c10::str(value.sym_sizes()));
  MISTRAL_EXT_CHECK(std::isfinite(scale), "{}: scale must be finite, got {}", name, scale);
  MISTRAL_EXT_CHECK(
      sliding_window >= 0, "{}: sliding_window must be >= 0, got {}", name, sliding_window);
  if (mask.has_value()) check_mask(name, *mask, query, key);
  if (sequence_ids.has_value()) {
    MISTRAL_EXT_CHECK(sequence_ids->scalar_type() == at::kLong,
                      "{}: sequence_ids must be int64, got {}",
                      name,
                      c10::toString(sequence_ids->scalar_type()));
    MISTRAL_EXT_CHECK(sequence_ids->device() == query.device(),
                      "{}: sequence_ids must be on query's device {}, got {}",
                      name,
                      query.device().str(),
                      sequence_ids->device().str());
    MISTRAL_EXT_CHECK(sequence_ids->dim() == 2 &&
                          fits(sequence_ids->sym_size(0), query.sym_size(0)) &&
                          sequence_ids->sym_size(1) == key.sym_size(1),
                      "{}: sequence_ids must have shape [{}, {}], got {}",
                      name,
                      c10::str(query.sym_size(0)),
                      c10::str(key.sym_size(1)),
                      c10::str(sequence_ids->sym_sizes()));
  }
}

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
                              const std::optional<at::Tensor>& sequence_ids) {
  constexpr const char* kName = "attention_backward";
  check_attention(kName, query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  const auto check_shape = [&](const char* argument, const at::Tensor& tensor) {
    check_like_query(kName, argument, tensor, query, 4);
    MISTRAL_EXT_CHECK(tensor.sym_sizes() == query.sym_sizes(),
                      "{}: {} must have query's shape {}, got {}",
                      kName,
                      argument,
                      c10::str(query.sym_sizes()),
                      c10::str(tensor.sym_sizes()));
  };
  check_shape("grad_output", grad_output);
  check_shape("output", output);
  const auto type = query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  MISTRAL_EXT_CHECK(logsumexp.scalar_type() == type && logsumexp.device() == query.device(),
                    "{}: logsumexp must be {} on query's device {}, got {} on {}",
                    kName,
                    c10::toString(type),
                    query.device().str(),
                    c10::toString(logsumexp.scalar_type()),
                    logsumexp.device().str());
  MISTRAL_EXT_CHECK(logsumexp.dim() == 3 && logsumexp.sym_size(0) == query.sym_size(0) &&
                        logsumexp.sym_size(1) == query.sym_size(2) &&
                        logsumexp.sym_size(2) == query.sym_size(1),
                    "{}: logsumexp must have shape [{}, {}, {}], got {}",
                    kName,
                    c10::str(query.sym_size(0)),
                    c10::str(query.sym_size(2)),
                    c10::str(query.sym_size(1)),
                    c10::str(logsumexp.sym_sizes()));
}

std::tuple<at::Tensor, at::Tensor> attention(const at::Tensor& query,
                                             const at::Tensor& key,
                                             const at::Tensor& value,
                                             double scale,
                                             bool is_causal,
                                             int64_t sliding_window,
                                             const std::optional<at::Tensor>& mask,
                                             const std::optional<at::Tensor>& sequence_ids) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::attention", "")
                             .typed<decltype(attention)>();
  return op.call(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward(
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
    const std::optional<at::Tensor>& sequence_ids) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::attention_backward", "")
                             .typed<decltype(attention_backward)>();
  return op.call(grad_output,
                 query,
                 key,
                 value,
                 output,
                 logsumexp,
                 scale,
                 is_causal,
                 sliding_window,
                 mask,
                 sequence_ids);
}

namespace {

std::tuple<at::Tensor, at::Tensor> attention_meta(const at::Tensor& query,
                                                  const at::Tensor& key,
                                                  const at::Tensor& value,
                                                  double scale,
                                                  bool is_causal,
                                                  int64_t sliding_window,
                                                  const std::optional<at::Tensor>& mask,
                                                  const std::optional<at::Tensor>& sequence_ids) {
  check_attention(
      "attention", query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  const auto type = query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {at::empty_symint(query.sym_sizes(), query.options()),
          at::empty_symint({query.sym_size(0), query.sym_size(2), query.sym_size(1)},
                           query.options().dtype(type))};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward_meta(
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
    const std::optional<at::Tensor>& sequence_ids) {
  check_attention_backward(grad_output,
                           query,
                           key,
                           value,
                           output,
                           logsumexp,
                           scale,
                           is_causal,
                           sliding_window,
                           mask,
                           sequence_ids);
  return {at::empty_symint(query.sym_sizes(), query.options()),
          at::empty_symint(key.sym_sizes(), key.options()),
          at::empty_symint(value.sym_sizes(), value.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("attention", &attention_meta);
  m.impl("attention_backward", &attention_backward_meta);
}

}  // namespace mistral_ext::ops
