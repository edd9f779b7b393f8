#include "mistral_ext/ops/cross_entropy.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
namespace {

// Logits taken into the accumulation dtype at a time, in elements.
constexpr int64_t kWidened = 8 * 1024 * 1024;

}  // namespace

void check_labels(const char* op,
                  const at::Tensor& labels,
                  const char* x_argument,
                  const at::Tensor& x) {
  MISTRAL_EXT_CHECK(labels.scalar_type() == at::kLong,
                    "{}: labels must be int64, got {}",
                    op,
                    c10::toString(labels.scalar_type()));
  MISTRAL_EXT_CHECK(labels.dim() == 1 && labels.sym_size(0) == x.sym_size(0),
                    "{}: labels must have shape [{}], got {}",
                    op,
                    c10::str(x.sym_size(0)),
                    c10::str(labels.sym_sizes()));
  check_device(op, "labels", labels, x_argument, x);
}

void check_cross_entropy(const at::Tensor& logits, const at::Tensor& labels) {
  check_float("cross_entropy", "logits", logits);
  MISTRAL_EXT_CHECK(logits.dim() == 2 && logits.sym_size(1) > 0,
                    "cross_entropy: logits must have shape [n, vocab_size], got {}",
                    c10::str(logits.sym_sizes()));
  check_labels("cross_entropy", labels, "logits", logits);
}

void check_label_range(const char* op, const at::Tensor& labels, int64_t vocab_size) {
  if (labels.numel() == 0) return;
  const auto [low, high] = at::aminmax(labels);
  const int64_t lowest = low.item<int64_t>();
  const int64_t highest = high.item<int64_t>();
  TORCH_CHECK_INDEX(lowest >= 0 && highest < vocab_size,
                    fmt::format("{}: labels must be in [0, {}) or ignore_index, got {}",
                                op,
                                vocab_size,
                                lowest < 0 ? lowest : highest));
}

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels, int64_t ignore_index) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::cross_entropy", "")
                             .typed<decltype(cross_entropy)>();
  return op.call(logits, labels, ignore_index);
}

at::Tensor row_losses_reference(const at::Tensor& logits,
                                const at::Tensor& labels,
                                const at::Tensor& gradient,
                                const at::Tensor& scale) {
  const auto index = labels.unsqueeze(1);
  const auto wide = logits.to(accumulation_dtype(logits));
  // From the largest one down: a loss near 0 is then no difference of large numbers.
  const auto below = wide.sub(wide.amax(1, /*keepdim=*/true));
  const auto logsumexp = below.exp().sum(1, /*keepdim=*/true).log_();
  auto losses = logsumexp.sub(below.gather(1, index)).squeeze(1);
  if (gradient.defined()) {
    const auto softmax = below.sub(logsumexp).exp_();
    softmax.scatter_(1, index, softmax.gather(1, index).sub(1));
    gradient.copy_(scale.defined() ? softmax.mul_(scale) : softmax);
  }
  return losses;
}

at::Tensor cross_entropy_reference(const at::Tensor& logits,
                                   const at::Tensor& labels,
                                   int64_t ignore_index) {
  check_cross_entropy(logits, labels);
  const auto kept = labels.ne(ignore_index).nonzero().squeeze(1);
  check_label_range("cross_entropy", labels.index_select(0, kept), logits.size(1));
  auto total = at::zeros({}, logits.options().dtype(accumulation_dtype(logits)));
  for (const auto& rows : kept.split(std::max<int64_t>(1, kWidened / logits.size(1)))) {
    const auto losses = row_losses_reference(
        logits.index_select(0, rows), labels.index_select(0, rows), /*gradient=*/{}, /*scale=*/{});
    total.add_(losses.sum());
  }
  return total;
}

namespace {

at::Tensor cross_entropy_meta(const at::Tensor& logits,
                              const at::Tensor& labels,
                              int64_t /*ignore_index*/) {
  check_cross_entropy(logits, labels);
  return at::empty({}, logits.options().dtype(accumulation_dtype(logits)));
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("cross_entropy", &cross_entropy_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) { m.impl("cross_entropy", &cross_entropy_meta); }

}  // namespace mistral_ext::ops
