#include "mistral_ext/ops/attention.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
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
  const auto type = accumulation_dtype(query);
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
