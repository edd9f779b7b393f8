#include "mistral_ext/ops/cuda/flash_attention.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "mistral_ext/kernels/cuda/flash_attention.h"
#include "mistral_ext/ops/cuda/aligned_rows.h"
#include "mistral_ext/ops/cuda/launch.h"

namespace mistral_ext::ops {
namespace {

// x, itself or a copy, as tensor copies read it: rows aligned, and none of them read twice.
at::Tensor with_own_rows(const at::Tensor& x) {
  for (int64_t d = 0; d < 3; ++d) {
    if (x.size(d) > 1 && x.stride(d) == 0) return x.clone(at::MemoryFormat::Contiguous);
  }
  return with_aligned_rows(x);
}

// From one sequence to the next; 0 where all share one row.
int64_t step_of_rows(const at::Tensor& x, int64_t row) { return x.size(0) == 1 ? 0 : row; }

int to_int(int64_t x) { return static_cast<int>(x); }

// visible: int32 [batch or 1, words]
at::Tensor plan_mask(const at::Tensor& mask, cudaStream_t stream) {
  const auto sees = mask.scalar_type() == at::kBool ? mask : mask.ne(0);
  auto visible = at::empty({mask.size(0), kernels::cuda::visible_words(mask.size(1))},
                           mask.options().dtype(at::kInt));
  C10_CUDA_CHECK(
      kernels::cuda::plan_visible_keys(static_cast<const uint8_t*>(sees.const_data_ptr()),
                                       sees.stride(0),
                                       sees.stride(1),
                                       to_int(sees.size(0)),
                                       to_int(sees.size(1)),
                                       static_cast<uint32_t*>(visible.mutable_data_ptr()),
                                       stream));
  return visible;
}

// int64 [batch or 1, tiles, 2]
at::Tensor plan_ranges(const at::Tensor& ids, cudaStream_t stream) {
  auto ranges = at::empty({ids.size(0), kernels::cuda::flash_tiles(ids.size(1)), 2}, ids.options());
  C10_CUDA_CHECK(kernels::cuda::plan_sequence_ranges(ids.const_data_ptr<int64_t>(),
                                                     to_int(ids.size(0)),
                                                     to_int(ids.size(1)),
                                                     ranges.mutable_data_ptr<int64_t>(),
                                                     stream));
  return ranges;
}

}  // namespace

bool flash_attention_serves(const at::Tensor& query,
                            const at::Tensor& key,
                            double scale,
                            const std::optional<at::Tensor>& mask) {
  const bool is_half = query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kHalf;
  constexpr int64_t kMost = int64_t{1} << 30;
  return is_half && query.numel() > 0 && key.size(1) < kMost && query.size(0) < kMost &&
         scale > 0 && (!mask.has_value() || mask->dim() == 2) &&
         kernels::cuda::flash_attention_serves(compute_capability_major(query.device()),
                                               query.size(3));
}

std::tuple<at::Tensor, at::Tensor> flash_attention(const at::Tensor& query,
                                                   const at::Tensor& key,
                                                   const at::Tensor& value,
                                                   double scale,
                                                   bool is_causal,
                                                   int64_t sliding_window,
                                                   const std::optional<at::Tensor>& mask,
                                                   const std::optional<at::Tensor>& sequence_ids) {
  const OnDeviceOf device(query);
  const auto queries = with_own_rows(query);
  const auto keys = with_own_rows(key);
  const auto values = with_own_rows(value);
  at::Tensor visible;
  if (mask.has_value()) visible = plan_mask(*mask, device.stream());
  at::Tensor ids;
  at::Tensor ranges;
  if (sequence_ids.has_value()) {
    ids = sequence_ids->contiguous();
    ranges = plan_ranges(ids, device.stream());
  }
  auto output = empty_cuda(query.sizes(), query);
  auto logsumexp =
      at::empty({query.size(0), query.size(2), query.size(1)}, query.options().dtype(at::kFloat));
  // A window as wide as the keys hides none.
  const int64_t window = sliding_window < key.size(1) ? sliding_window : 0;
  const auto run = [&]<typename T>(Type<T>) {
    kernels::cuda::FlashAttention<T> args = {};
    args.query = data<T>(queries);
    args.query_batch_stride = queries.stride(0);
    args.query_stride = queries.stride(1);
    args.query_head_stride = queries.stride(2);
    args.key = data<T>(keys);
    args.key_batch_stride = keys.stride(0);
    args.key_stride = keys.stride(1);
    args.key_head_stride = keys.stride(2);
    args.value = data<T>(values);
    args.value_batch_stride = values.stride(0);
    args.value_stride = values.stride(1);
    args.value_head_stride = values.stride(2);
    args.output = mutable_data<T>(output);
    args.logsumexp = mutable_data<float>(logsumexp);
    args.batch = to_int(query.size(0));
    args.heads = to_int(query.size(2));
    args.kv_heads = to_int(key.size(2));
    args.head_dim = to_int(query.size(3));
    args.query_len = to_int(query.size(1));
    args.key_len = to_int(key.size(1));
    args.is_causal = is_causal;
    args.sliding_window = to_int(window);
    args.scale = static_cast<float>(scale);
    args.multiprocessors = multiprocessors(query.device());
    if (visible.defined()) {
      args.visible = static_cast<const uint32_t*>(visible.const_data_ptr());
      args.visible_batch_stride = step_of_rows(visible, visible.size(1));
    }
    if (ids.defined()) {
      args.sequence_ids = data<int64_t>(ids);
      args.sequence_ids_batch_stride = step_of_rows(ids, ids.size(1));
      args.sequence_ranges = data<int64_t>(ranges);
      args.sequence_ranges_batch_stride = step_of_rows(ranges, 2 * ranges.size(1));
    }
    C10_CUDA_CHECK(kernels::cuda::flash_attention(args, device.stream()));
  };
  if (query.scalar_type() == at::kHalf) {
    run(Type<kernels::float16>());
  } else {
    run(Type<kernels::bfloat16>());
  }
  return {std::move(output), std::move(logsumexp)};
}

}  // namespace mistral_ext::ops
