#include "mistral_ext/ops/cpu/attention_args.h"

#include <algorithm>

namespace mistral_ext::ops {
namespace {

using kernels::cpu::AttentionMaskType;

// The stride to walk a dimension by: 0 where it is one element for all.
int64_t broadcast_stride(const at::Tensor& x, int64_t dim) {
  return x.size(dim) == 1 ? 0 : x.stride(dim);
}

AttentionMaskType mask_type(at::ScalarType type) {
  switch (type) {
    case at::kBool:
      return AttentionMaskType::boolean;
    case at::kDouble:
      return AttentionMaskType::float64;
    case at::kBFloat16:
      return AttentionMaskType::bfloat16;
    case at::kHalf:
      return AttentionMaskType::float16;
    default:
      return AttentionMaskType::float32;
  }
}

}  // namespace

kernels::cpu::AttentionTensor describe(const at::Tensor& x, at::Tensor& copy) {
  const bool together = x.stride(3) == 1 || x.size(3) == 1;
  if (!together) copy = x.contiguous();
  const at::Tensor& used = together ? x : copy;
  return {used.const_data_ptr(), used.stride(0), used.stride(1), used.stride(2)};
}

int64_t forward_products(const kernels::cpu::AttentionArgs& args) {
  const int64_t mean = args.is_causal ? args.key_len - args.query_len / 2 : args.key_len;
  const int64_t keys = args.sliding_window > 0 ? std::min(args.sliding_window, mean) : mean;
  return 2 * args.batch * args.heads * args.query_len * keys * args.head_dim;
}

AttentionInput::AttentionInput(const at::Tensor& query,
                               const at::Tensor& key,
                               const at::Tensor& value,
                               double scale,
                               bool is_causal,
                               int64_t sliding_window,
                               const std::optional<at::Tensor>& mask,
                               const std::optional<at::Tensor>& sequence_ids)
    : args{.batch = query.size(0),
           .query_len = query.size(1),
           .key_len = key.size(1),
           .heads = query.size(2),
           .kv_heads = key.size(2),
           .head_dim = query.size(3),
           .scale = scale,
           .is_causal = is_causal,
           .sliding_window = sliding_window,
           .query = describe(query, query_copy_),
           .key = describe(key, key_copy_),
           .value = describe(value, value_copy_)} {
  if (mask.has_value()) describe_mask(*mask);
  if (sequence_ids.has_value()) {
    args.sequence_ids = sequence_ids->const_data_ptr<int64_t>();
    args.sequence_strides[0] = broadcast_stride(*sequence_ids, 0);
    args.sequence_strides[1] = sequence_ids->stride(1);
  }
}

void AttentionInput::describe_mask(const at::Tensor& mask) {
  if (mask.dim() == 2) {
    const bool is_bool = mask.scalar_type() == at::kBool;
    if (!is_bool) mask_copy_ = mask.ne(0);
    const at::Tensor& used = is_bool ? mask : mask_copy_;
    args.key_mask = static_cast<const uint8_t*>(used.const_data_ptr());
    args.key_mask_strides[0] = broadcast_stride(used, 0);
    args.key_mask_strides[1] = used.stride(1);
    return;
  }
  args.mask_type = mask_type(mask.scalar_type());
  args.mask = mask.const_data_ptr();
  for (int d = 0; d < 4; ++d) args.mask_strides[d] = broadcast_stride(mask, d);
}

}  // namespace mistral_ext::ops
