#include "mistral_ext/ops/cuda/decode_attention.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <type_traits>

#include "mistral_ext/kernels/cuda/decode_attention.h"
#include "mistral_ext/ops/cuda/aligned_rows.h"
#include "mistral_ext/ops/cuda/launch.h"

namespace mistral_ext::ops {
namespace {

// The step from one sequence to the next; 0 where all share one.
int64_t batch_stride(const at::Tensor& x) { return x.size(0) == 1 ? 0 : x.stride(0); }

}  // namespace

bool decode_attention_serves(const at::Tensor& query,
                             const at::Tensor& key,
                             const std::optional<at::Tensor>& mask,
                             const std::optional<at::Tensor>& sequence_ids) {
  const int64_t head_dim = query.size(3);
  return query.size(1) == 1 && query.numel() > 0 && key.size(1) > 0 &&
         query.scalar_type() != at::kDouble && head_dim % kernels::cuda::kDecodeHeadDimUnit == 0 &&
         head_dim <= kernels::cuda::kDecodeMostHeadDim && !sequence_ids.has_value() &&
         (!mask.has_value() || mask->dim() == 2) && compute_capability_major(query.device()) >= 8;
}

std::tuple<at::Tensor, at::Tensor> decode_attention(const at::Tensor& query,
                                                    const at::Tensor& key,
                                                    const at::Tensor& value,
                                                    double scale,
                                                    int64_t sliding_window,
                                                    const std::optional<at::Tensor>& mask) {
  const OnDeviceOf device(query);
  const int64_t batch = query.size(0);
  const int64_t heads = query.size(2);
  const int64_t kv_heads = key.size(2);
  const int64_t head_dim = query.size(3);
  const int64_t last = key.size(1);
  const int64_t first = sliding_window > 0 ? std::max<int64_t>(0, last - sliding_window) : 0;
  const auto queries = with_aligned_rows(query);
  const auto keys = with_aligned_rows(key);
  const auto values = with_aligned_rows(value);
  at::Tensor visible;
  if (mask.has_value()) visible = mask->scalar_type() == at::kBool ? *mask : mask->ne(0);
  auto output = empty_cuda(query.sizes(), query);
  auto logsumexp = at::empty({batch, heads, 1}, query.options().dtype(at::kFloat));
  const int splits = kernels::cuda::decode_attention_splits(
      batch, heads, kv_heads, last - first, multiprocessors(query.device()));
  auto partial =
      at::empty({kernels::cuda::decode_attention_scratch(batch, heads, head_dim, splits)},
                logsumexp.options());
  dispatch_float(query.scalar_type(), [&]<typename T>(Type<T>) {
    if constexpr (!std::is_same_v<T, double>) {
      C10_CUDA_CHECK(kernels::cuda::decode_attention(
          kernels::cuda::DecodeAttention<T>{
              .query = data<T>(queries),
              .query_batch_stride = batch_stride(queries),
              .query_head_stride = queries.stride(2),
              .key = data<T>(keys),
              .key_batch_stride = batch_stride(keys),
              .key_head_stride = keys.stride(2),
              .key_stride = keys.stride(1),
              .value = data<T>(values),
              .value_batch_stride = batch_stride(values),
              .value_head_stride = values.stride(2),
              .value_stride = values.stride(1),
              .mask = visible.defined() ? data<uint8_t>(visible) : nullptr,
              .mask_batch_stride = visible.defined() ? batch_stride(visible) : 0,
              .mask_stride = visible.defined() ? visible.stride(1) : 0,
              .output = mutable_data<T>(output),
              .logsumexp = mutable_data<float>(logsumexp),
              .partial = mutable_data<float>(partial),
              .batch = batch,
              .heads = heads,
              .kv_heads = kv_heads,
              .head_dim = head_dim,
              .first = first,
              .last = last,
              .splits = splits,
              .scale = static_cast<float>(scale)},
          device.stream()));
    }
  });
  return {std::move(output), std::move(logsumexp)};
}

}  // namespace mistral_ext::ops
