#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/attention_reference.h"
#include "mistral_ext/ops/cuda/aligned_rows.h"
#include "mistral_ext/ops/cuda/decode_attention.h"
#include "mistral_ext/ops/cuda/flash_attention.h"
#include "mistral_ext/ops/cuda/launch.h"

namespace mistral_ext::ops {
namespace {

// Whether ATen's flash attention (Dao 2023, "FlashAttention-2", arXiv 2307.08691) computes this:
// its causal and window bounds are aligned at the bottom right as ours are, and it visits the band
// only. It takes no mask.
bool flash_serves(const at::Tensor& query,
                  const std::optional<at::Tensor>& mask,
                  const std::optional<at::Tensor>& sequence_ids) {
  if (mask.has_value() || sequence_ids.has_value() || query.numel() == 0) return false;
  const bool is_half = query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kHalf;
  const int64_t head_dim = query.size(3);
  return is_half && head_dim % 8 == 0 && head_dim <= 256 &&
         compute_capability_major(query.device()) >= 8;
}

// ATen's splits the keys over blocks where there are few queries; ours takes 128 of them at a time.
bool has_few_queries(const at::Tensor& query) { return query.size(1) < 64; }

// How many keys before its own slot a query sees.
std::optional<c10::SymInt> window_left(int64_t sliding_window) {
  if (sliding_window == 0) return std::nullopt;
  return c10::SymInt(sliding_window - 1);
}

// And how many after it: none where it is causal, else all, which its kernels call -1.
std::optional<c10::SymInt> window_right(bool is_causal, int64_t sliding_window) {
  if (sliding_window == 0) return std::nullopt;
  return c10::SymInt(is_causal ? 0 : -1);
}

std::tuple<at::Tensor, at::Tensor> attention_cuda(const at::Tensor& query,
                                                  const at::Tensor& key,
                                                  const at::Tensor& value,
                                                  double scale,
                                                  bool is_causal,
                                                  int64_t sliding_window,
                                                  const std::optional<at::Tensor>& mask,
                                                  const std::optional<at::Tensor>& sequence_ids) {
  check_attention(
      "attention", query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  // Without a mask or a window flash attention is the faster one for a single query too.
  const bool flash = flash_serves(query, mask, sequence_ids);
  if ((!flash || sliding_window > 0) && decode_attention_serves(query, key, mask, sequence_ids)) {
    return decode_attention(query, key, value, scale, sliding_window, mask);
  }
  if (flash_attention_serves(query, key, scale, mask) && !(flash && has_few_queries(query))) {
    return flash_attention(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  }
  if (!flash) {
    return attention_reference(
        query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  }
  const OnDeviceOf device(query);
  auto result = at::_flash_attention_forward_symint(with_aligned_rows(query),
                                                    with_aligned_rows(key),
                                                    with_aligned_rows(value),
                                                    /*cum_seq_q=*/std::nullopt,
                                                    /*cum_seq_k=*/std::nullopt,
                                                    query.size(1),
                                                    key.size(1),
                                                    /*dropout_p=*/0.0,
                                                    is_causal,
                                                    /*return_debug_mask=*/false,
                                                    scale,
                                                    window_left(sliding_window),
                                                    window_right(is_causal, sliding_window));
  return {std::get<0>(result).contiguous(), std::get<1>(result)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward_cuda(
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
  if (!flash_serves(query, mask, sequence_ids)) {
    return attention_backward_reference(grad_output,
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
  const OnDeviceOf device(query);
  const auto no_dropout = at::empty({2}, query.options().dtype(at::kUInt64));
  auto [grad_query, grad_key, grad_value] =
      at::_flash_attention_backward_symint(with_aligned_rows(grad_output),
                                           with_aligned_rows(query),
                                           with_aligned_rows(key),
                                           with_aligned_rows(value),
                                           with_aligned_rows(output),
                                           logsumexp.contiguous(),
                                           /*cum_seq_q=*/at::Tensor(),
                                           /*cum_seq_k=*/at::Tensor(),
                                           query.size(1),
                                           key.size(1),
                                           /*dropout_p=*/0.0,
                                           is_causal,
                                           /*rng_state=*/no_dropout,
                                           /*unused=*/no_dropout,
                                           scale,
                                           window_left(sliding_window),
                                           window_right(is_causal, sliding_window));
  return {grad_query.contiguous(), grad_key.contiguous(), grad_value.contiguous()};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) {
  m.impl("attention", &attention_cuda);
  m.impl("attention_backward", &attention_backward_cuda);
}

}  // namespace mistral_ext::ops
