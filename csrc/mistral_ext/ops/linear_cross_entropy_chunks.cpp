#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cross_entropy.h"
#include "mistral_ext/ops/linear.h"
#include "mistral_ext/ops/linear_cross_entropy.h"

namespace mistral_ext::ops {
namespace {

// Bytes of one chunk's logits in the accumulation dtype.
constexpr int64_t kChunkBytes = 64 * 1024 * 1024;

// Outputs whose weight gradient is summed at a time on CPU: the products of a chunk are added while
// they are in the cache.
constexpr int64_t kOutputs = 2048;

// a^T b in the accumulation dtype, but for bf16 on CPU, where it comes rounded. a: [rows, m],
// b: [rows, n]. Sums over rows of float16 could leave its range.
at::Tensor transposed_product(const at::Tensor& a, const at::Tensor& b) {
  const auto wide = accumulation_dtype(a);
  if (a.scalar_type() != wide && a.is_cuda()) return at::mm(a.t(), b, wide);
  if (a.scalar_type() == at::kHalf) return ops::linear(a.t().to(wide), b.t().to(wide));
  return ops::linear(a.t(), b.t());
}

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
  const auto kept = labels.ne(ignore_index).nonzero().squeeze(1);
  const int64_t count = kept.size(0);
  const bool keeps_all = count == hidden.size(0);
  const auto rows = keeps_all ? hidden : hidden.index_select(0, kept);
  const auto targets = keeps_all ? labels.contiguous() : labels.index_select(0, kept);
  check_label_range("linear_cross_entropy", targets, vocab_size);

  auto losses = at::empty({count}, wide);
  auto grad_rows = for_hidden ? at::empty_like(rows, at::MemoryFormat::Contiguous)
                              : at::empty({0}, hidden.options());
  auto grad_weight = for_weight ? at::zeros(weight.sizes(), wide) : at::empty({0}, wide);

  // Chunks of about one size.
  const int64_t row_bytes = vocab_size * static_cast<int64_t>(wide.dtype().itemsize());
  const int64_t most = std::max<int64_t>(1, kChunkBytes / row_bytes);
  const int64_t chunks = std::max<int64_t>(1, (count + most - 1) / most);
  const int64_t step = std::max<int64_t>(1, (count + chunks - 1) / chunks);
  for (int64_t begin = 0; begin < count; begin += step) {
    const int64_t length = std::min(step, count - begin);
    const auto part = rows.narrow(0, begin, length);
    auto logits = ops::linear(part, weight);
    const auto part_losses =
        row_losses(logits, targets.narrow(0, begin, length), for_hidden || for_weight);
    losses.narrow(0, begin, length).copy_(part_losses);
    const auto& grad_logits = logits;
    if (for_hidden) {
      grad_rows.narrow(0, begin, length).copy_(ops::linear(grad_logits, weight.t()));
    }
    if (for_weight) add_transposed_product(grad_weight, grad_logits, part);
  }
  if (for_hidden && !keeps_all) {
    grad_rows = at::zeros(hidden.sizes(), hidden.options()).index_copy_(0, kept, grad_rows);
  }
  return {losses.sum(), grad_rows, grad_weight};
}

}  // namespace mistral_ext::ops
