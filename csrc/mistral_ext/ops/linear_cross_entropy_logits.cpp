#include "mistral_ext/ops/linear_cross_entropy_logits.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <utility>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cross_entropy.h"
#include "mistral_ext/ops/linear.h"
#include "mistral_ext/ops/linear_cross_entropy_parts.h"

namespace mistral_ext::ops {
namespace {

using TwoTensors = std::tuple<at::Tensor, at::Tensor>;

int64_t wide_itemsize(const at::Tensor& x) {
  return static_cast<int64_t>(c10::elementSize(accumulation_dtype(x)));
}

void check_backward(const at::Tensor& grad_loss,
                    const at::Tensor& hidden,
                    const at::Tensor& weight,
                    const at::Tensor& labels,
                    const at::Tensor& logits) {
  const auto op = "linear_cross_entropy_logits_backward";
  check_linear_cross_entropy(hidden, weight, labels);
  check_grad_loss(op, grad_loss);
  MISTRAL_EXT_CHECK(logits.dim() == 2 && logits.sym_size(0) == hidden.sym_size(0) &&
                        logits.sym_size(1) == weight.sym_size(0),
                    "{}: logits must have shape [{}, {}], got {}",
                    op,
                    c10::str(hidden.sym_size(0)),
                    c10::str(weight.sym_size(0)),
                    c10::str(logits.sym_sizes()));
  check_dtype_and_device(op, "logits", logits, "hidden", hidden);
}

// grad_loss in two factors: the first for the gradient of the logits, before it is rounded, the
// second for the products. float16 has not the range for a mean's factor, so it comes last, as a
// power of two, by which nothing is rounded once more.
struct Factors {
  explicit Factors(const at::Tensor& grad_loss, const at::Tensor& x)
      : first(grad_loss.to(accumulation_dtype(x))) {
    if (x.scalar_type() != at::kHalf) return;
    const auto [mantissa, exponent] = at::frexp(first);
    first = mantissa;
    second = exponent.to(mantissa.scalar_type()).exp2();
  }

  at::Tensor finish(const at::Tensor& product, at::ScalarType dtype) const {
    return second.defined() ? scaled(product, second, dtype) : product;
  }

  at::Tensor first;
  at::Tensor second;  // Undefined: 1
};

at::Tensor weight_gradient(const at::Tensor& grad_logits,
                           const at::Tensor& rows,
                           const at::Tensor& weight,
                           const Factors& factors) {
  const bool finished = !factors.second.defined();
  if (finished && !weight.is_cpu()) return ops::linear(grad_logits.t(), rows.t());
  auto result = at::empty(weight.sizes(), weight.options());
  for (int64_t begin = 0; begin < weight.size(0); begin += kOutputs) {
    const int64_t count = std::min(kOutputs, weight.size(0) - begin);
    const auto part = grad_logits.narrow(1, begin, count);
    result.narrow(0, begin, count)
        .copy_(finished ? ops::linear(part.t(), rows.t())
                        : factors.finish(transposed_product(part, rows), weight.scalar_type()));
  }
  return result;
}

}  // namespace

bool keeps_logits(const at::Tensor& hidden, const at::Tensor& weight) {
  if (!weight.requires_grad()) return false;
  const auto logits_bytes = 2 * hidden.sym_size(0) * hidden.element_size();
  return TORCH_GUARD_OR_FALSE(logits_bytes.sym_lt(weight.sym_size(1) * wide_itemsize(weight)));
}

TwoTensors linear_cross_entropy_logits(const at::Tensor& hidden,
                                       const at::Tensor& weight,
                                       const at::Tensor& labels,
                                       int64_t ignore_index) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::linear_cross_entropy_logits", "")
                             .typed<decltype(linear_cross_entropy_logits)>();
  return op.call(hidden, weight, labels, ignore_index);
}

TwoTensors linear_cross_entropy_logits_backward(const at::Tensor& grad_loss,
                                                const at::Tensor& hidden,
                                                const at::Tensor& weight,
                                                const at::Tensor& labels,
                                                const at::Tensor& logits,
                                                int64_t ignore_index,
                                                bool for_hidden,
                                                bool for_weight) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mistral_ext::linear_cross_entropy_logits_backward", "")
          .typed<decltype(linear_cross_entropy_logits_backward)>();
  return op.call(grad_loss, hidden, weight, labels, logits, ignore_index, for_hidden, for_weight);
}

TwoTensors linear_cross_entropy_logits_by(RowLosses* row_losses,
                                          const at::Tensor& hidden,
                                          const at::Tensor& weight,
                                          const at::Tensor& labels,
                                          int64_t ignore_index) {
  check_linear_cross_entropy(hidden, weight, labels);
  const int64_t vocab_size = weight.size(0);
  const KeptRows kept(labels, ignore_index, vocab_size);
  auto logits = ops::linear(kept.of(hidden), weight);
  auto losses = at::empty({kept.count()}, logits.options().dtype(accumulation_dtype(hidden)));
  for_each_chunk(kept.count(), vocab_size, wide_itemsize(hidden), [&](int64_t begin, int64_t n) {
    losses.narrow(0, begin, n)
        .copy_(row_losses(logits.narrow(0, begin, n),
                          kept.labels().narrow(0, begin, n),
                          /*gradient=*/at::Tensor(),
                          /*scale=*/at::Tensor()));
  });
  if (!kept.all()) {
    auto padded = at::empty({hidden.size(0), vocab_size}, logits.options());
    padded.narrow(0, 0, kept.count()).copy_(logits);
    logits = std::move(padded);
  }
  return {losses.sum(), logits};
}

TwoTensors linear_cross_entropy_logits_backward_by(RowLosses* row_losses,
                                                   const at::Tensor& grad_loss,
                                                   const at::Tensor& hidden,
                                                   const at::Tensor& weight,
                                                   const at::Tensor& labels,
                                                   const at::Tensor& logits,
                                                   int64_t ignore_index,
                                                   bool for_hidden,
                                                   bool for_weight) {
  check_backward(grad_loss, hidden, weight, labels, logits);
  const KeptRows kept(labels, ignore_index, weight.size(0));
  const auto none = at::empty({0}, hidden.options());
  // Without a row there is nothing to multiply, and a grad_loss of nan has no say.
  if (kept.count() == 0) {
    return {for_hidden ? at::zeros(hidden.sizes(), hidden.options()) : none,
            for_weight ? at::zeros(weight.sizes(), weight.options()) : none};
  }
  const Factors factors(grad_loss, hidden);
  const auto rows_logits = logits.narrow(0, 0, kept.count()).contiguous();
  const auto grad_logits = at::empty(rows_logits.sizes(), rows_logits.options());
  auto grad_rows = for_hidden ? at::empty({kept.count(), hidden.size(1)}, hidden.options()) : none;
  for_each_chunk(
      kept.count(), weight.size(0), wide_itemsize(hidden), [&](int64_t begin, int64_t n) {
        const auto part = grad_logits.narrow(0, begin, n);
        row_losses(rows_logits.narrow(0, begin, n),
                   kept.labels().narrow(0, begin, n),
                   part,
                   factors.first);
        if (!for_hidden) return;
        const auto product = ops::linear(part, weight.t());
        grad_rows.narrow(0, begin, n).copy_(factors.finish(product, hidden.scalar_type()));
      });
  return {for_hidden ? kept.put_back(grad_rows) : none,
          for_weight ? weight_gradient(grad_logits, kept.of(hidden), weight, factors) : none};
}

namespace {

TwoTensors logits_reference(const at::Tensor& hidden,
                            const at::Tensor& weight,
                            const at::Tensor& labels,
                            int64_t ignore_index) {
  return linear_cross_entropy_logits_by(
      &row_losses_reference, hidden, weight, labels, ignore_index);
}

TwoTensors logits_backward_reference(const at::Tensor& grad_loss,
                                     const at::Tensor& hidden,
                                     const at::Tensor& weight,
                                     const at::Tensor& labels,
                                     const at::Tensor& logits,
                                     int64_t ignore_index,
                                     bool for_hidden,
                                     bool for_weight) {
  return linear_cross_entropy_logits_backward_by(&row_losses_reference,
                                                 grad_loss,
                                                 hidden,
                                                 weight,
                                                 labels,
                                                 logits,
                                                 ignore_index,
                                                 for_hidden,
                                                 for_weight);
}

TwoTensors logits_meta(const at::Tensor& hidden,
                       const at::Tensor& weight,
                       const at::Tensor& labels,
                       int64_t /*ignore_index*/) {
  check_linear_cross_entropy(hidden, weight, labels);
  return {at::empty({}, hidden.options().dtype(accumulation_dtype(hidden))),
          at::empty_symint({hidden.sym_size(0), weight.sym_size(0)}, hidden.options())};
}

TwoTensors logits_backward_meta(const at::Tensor& grad_loss,
                                const at::Tensor& hidden,
                                const at::Tensor& weight,
                                const at::Tensor& labels,
                                const at::Tensor& logits,
                                int64_t /*ignore_index*/,
                                bool for_hidden,
                                bool for_weight) {
  check_backward(grad_loss, hidden, weight, labels, logits);
  const auto like = [](bool wanted, const at::Tensor& x) {
    return wanted ? at::empty_symint(x.sym_sizes(), x.options()) : at::empty({0}, x.options());
  };
  return {like(for_hidden, hidden), like(for_weight, weight)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("linear_cross_entropy_logits", &logits_reference);
  m.impl("linear_cross_entropy_logits_backward", &logits_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("linear_cross_entropy_logits", &logits_meta);
  m.impl("linear_cross_entropy_logits_backward", &logits_backward_meta);
}

}  // namespace mistral_ext::ops
