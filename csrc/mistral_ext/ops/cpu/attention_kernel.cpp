#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/attention_reference.h"
#include "mistral_ext/ops/cpu/attention_args.h"
#include "mistral_ext/ops/cpu/parallel_units.h"

namespace mistral_ext::ops {
namespace {

using kernels::cpu::AttentionArgs;
using kernels::cpu::AttentionPlan;

template <typename T>
void run(const AttentionArgs& args) {
  const AttentionPlan plan(args);
  const int64_t rows = plan.rows_per_unit(args);
  const int64_t scratch_size = kernels::cpu::attention_forward_scratch(rows, args.head_dim);
  const auto kernel = MISTRAL_EXT_AT_LEVEL(attention_forward<T>);
  if (plan.splits == 1) {
    for_each_unit(
        plan.units(), scratch_size, forward_products(args), [&](float* scratch, int64_t i) {
          kernel(args, plan.unit(i), scratch, nullptr);
        });
    return;
  }
  const int64_t partial_size = kernels::cpu::attention_partial_size(rows, args.head_dim);
  const auto partial = at::detail::empty_cpu({plan.units() * partial_size}, at::kFloat);
  float* const partials = partial.mutable_data_ptr<float>();
  for_each_unit(plan.units(), scratch_size, forward_products(args), [&](float* scratch, int64_t i) {
    kernel(args, plan.unit(i), scratch, partials + i * partial_size);
  });
  const auto combine = MISTRAL_EXT_AT_LEVEL(attention_combine<T>);
  const int64_t joins = plan.units() / plan.splits;
  const int64_t grain = std::max<int64_t>(1, kGrain / (plan.splits * partial_size));
  at::parallel_for(0, joins, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * plan.splits; i < end * plan.splits; i += plan.splits) {
      combine(args, plan.unit(i), plan.splits, partials + i * partial_size, partial_size);
    }
  });
}

std::tuple<at::Tensor, at::Tensor> attention_cpu(const at::Tensor& query,
                                                 const at::Tensor& key,
                                                 const at::Tensor& value,
                                                 double scale,
                                                 bool is_causal,
                                                 int64_t sliding_window,
                                                 const std::optional<at::Tensor>& mask,
                                                 const std::optional<at::Tensor>& sequence_ids) {
  if (query.scalar_type() == at::kDouble) {
    return attention_reference(
        query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  }
  check_attention(
      "attention", query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  auto output = empty_cpu(query.sizes(), query);
  auto logsumexp = at::detail::empty_cpu({query.size(0), query.size(2), query.size(1)}, at::kFloat);
  if (output.numel() == 0) {
    logsumexp.fill_(-std::numeric_limits<float>::infinity());
    return {std::move(output), std::move(logsumexp)};
  }
  AttentionInput input(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  input.args.output = output.mutable_data_ptr();
  input.args.logsumexp = logsumexp.mutable_data_ptr<float>();
  dispatch_float(query.scalar_type(), [&]<typename T>(Type<T>) {
    if constexpr (!std::is_same_v<T, double>) run<T>(input.args);
  });
  return {std::move(output), std::move(logsumexp)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) { m.impl("attention", &attention_cpu); }

}  // namespace mistral_ext::ops
