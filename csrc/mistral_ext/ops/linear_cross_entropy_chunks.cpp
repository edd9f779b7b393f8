#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/linear.h"
#include "mistral_ext/ops/linear_cross_entropy.h"
#include "mistral_ext/ops/linear_cross_entropy_parts.h"

namespace mistral_ext::ops {
namespace {

// sum += a^T b
void add_transposed_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  const int64_t outputs = sum.size(0);
  const int64_t step = sum.is_cpu() ? kOutputs : outputs;
  for (int64_t begin = 0; begin < outputs; begin += step) {
    const int64_t count = std::min(step, outputs - begin);
    sum.narrow(0, begin, count).add_(transposed_product(a.narrow(1, begin, count), b));
  }
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_in_chunks(
    const at::Tensor& hidden,
    const at::Tensor& weight,
    const at::Tensor& labels,
    int64_t ignore_index,
    bool for_hidden,
    bool for_weight,
    RowLosses* row_losses) {
  const auto wide = hidden.options().dtype(accumulation_dtype(hidden));
  const int64_t vocab_size = weight.size(0);
  const KeptRows kept(labels, ignore_index, vocab_size);
  const auto rows = kept.of(hidden);

  auto losses = at::empty({kept.count()}, wide);
  auto grad_rows = for_hidden ? at::empty_like(rows, at::MemoryFormat::Contiguous)
                              : at::empty({0}, hidden.options());
  auto grad_weight = for_weight ? at::zeros(weight.sizes(), wide) : at::empty({0}, wide);

  const auto itemsize = static_cast<int64_t>(wide.dtype().itemsize());
  for_each_chunk(kept.count(), vocab_size, itemsize, [&](int64_t begin, int64_t length) {
    const auto part = rows.narrow(0, begin, length);
    const auto logits = ops::linear(part, weight);
    // In place of the logits.
    const auto grad_logits = for_hidden || for_weight ? logits : at::Tensor();
    const auto targets = kept.labels().narrow(0, begin, length);
    losses.narrow(0, begin, length)
        .copy_(row_losses(logits, targets, grad_logits, /*scale=*/at::Tensor()));
    if (for_hidden) {
      grad_rows.narrow(0, begin, length).copy_(ops::linear(grad_logits, weight.t()));
    }
    if (for_weight) add_transposed_product(grad_weight, grad_logits, part);
  });
  return {losses.sum(), for_hidden ? kept.put_back(grad_rows) : grad_rows, grad_weight};
}

}  // namespace mistral_ext::ops
