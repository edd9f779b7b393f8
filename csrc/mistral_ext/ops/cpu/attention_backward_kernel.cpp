#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "mistral_ext/kernels/cpu/attention_backward.h"
#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/attention_reference.h"
#include "mistral_ext/ops/cpu/attention_args.h"
#include "mistral_ext/ops/cpu/parallel_units.h"

namespace mistral_ext::ops {
namespace {

using kernels::cpu::AttentionArgs;
using kernels::cpu::AttentionBackwardArgs;
using kernels::cpu::AttentionPlan;
using kernels::cpu::AttentionUnit;
using kernels::cpu::kAttentionKeys;

template <typename T>
void run_inner(const AttentionBackwardArgs& args) {
  const auto kernel = MISTRAL_EXT_AT_LEVEL(attention_inner<T>);
  at::parallel_for(0,
                   args.forward.batch * args.forward.query_len,
                   row_grain(args.forward.heads * args.forward.head_dim),
                   [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

template <typename T>
void run_query(const AttentionBackwardArgs& args) {
  const auto kernel = MISTRAL_EXT_AT_LEVEL(attention_backward_query<T>);
  AttentionPlan plan(args.forward);
  plan.splits = 1;
  plan.split_keys = plan.key_len;
  const int64_t rows = plan.rows_per_unit(args.forward);
  for_each_unit(plan.units(),
                kernels::cpu::attention_backward_query_scratch(rows, args.forward.head_dim),
                forward_products(args.forward),
                [&](float* scratch, int64_t i) { kernel(args, plan.unit(i), scratch); });
}

template <typename T>
void run_key(const AttentionBackwardArgs& args) {
  const auto kernel = MISTRAL_EXT_AT_LEVEL(attention_backward_key<T>);
  const AttentionArgs& forward = args.forward;
  const int64_t lanes = forward.batch * forward.kv_heads;
  const int64_t blocks = (forward.key_len + kAttentionKeys - 1) / kAttentionKeys;
  for_each_unit(blocks * lanes,
                kernels::cpu::attention_backward_key_scratch(forward),
                2 * forward_products(forward),
                [&](float* scratch, int64_t i) {
                  // The first keys are seen by the most queries.
                  const int64_t begin = i / lanes * kAttentionKeys;
                  const AttentionUnit unit{
                      .batch = i % lanes / forward.kv_heads,
                      .kv_head = i % forward.kv_heads,
                      .query_begin = 0,
                      .query_end = 0,
                      .key_begin = begin,
                      .key_end = std::min(begin + kAttentionKeys, forward.key_len)};
                  kernel(args, unit, scratch);
                });
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward_cpu(
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
  if (query.scalar_type() == at::kDouble || query.numel() == 0) {
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
  const AttentionInput input(
      query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  const auto totals = logsumexp.contiguous();
  const auto inner = at::detail::empty_cpu(totals.sizes(), at::kFloat);
  auto grad_query = empty_cpu(query.sizes(), query);
  auto grad_key = empty_cpu(key.sizes(), key);
  auto grad_value = empty_cpu(key.sizes(), key);
  at::Tensor output_copy;
  at::Tensor grad_output_copy;
  const AttentionBackwardArgs args{.forward = input.args,
                                   .output = describe(output, output_copy),
                                   .grad_output = describe(grad_output, grad_output_copy),
                                   .logsumexp = totals.const_data_ptr<float>(),
                                   .inner = inner.mutable_data_ptr<float>(),
                                   .grad_query = grad_query.mutable_data_ptr(),
                                   .grad_key = grad_key.mutable_data_ptr(),
                                   .grad_value = grad_value.mutable_data_ptr()};
  dispatch_float(query.scalar_type(), [&]<typename T>(Type<T>) {
    if constexpr (!std::is_same_v<T, double>) {
      run_inner<T>(args);
      run_query<T>(args);
      run_key<T>(args);
    }
  });
  return {std::move(grad_query), std::move(grad_key), std::move(grad_value)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) { m.impl("attention_backward", &attention_backward_cpu); }

}  // namespace mistral_ext::ops
