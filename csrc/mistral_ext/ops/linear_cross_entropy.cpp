#include "mistral_ext/ops/linear_cross_entropy.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cross_entropy.h"
#include "mistral_ext/ops/linear_cross_entropy_parts.h"

namespace mistral_ext::ops {
namespace {

using ThreeTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using TwoTensors = std::tuple<at::Tensor, at::Tensor>;

void check_backward(const at::Tensor& grad_loss,
                    const at::Tensor& hidden,
                    const at::Tensor& weight,
                    const at::Tensor& hidden_gradient,
                    const at::Tensor& weight_gradient) {
  const auto op = "linear_cross_entropy_backward";
  check_grad_loss(op, grad_loss);
  const auto check = [&](const char* argument, const at::Tensor& gradient, const at::Tensor& like) {
    MISTRAL_EXT_CHECK(gradient.sym_sizes() == like.sym_sizes() ||
                          gradient.sym_sizes() == c10::SymIntArrayRef({0}),
                      "{}: {} must have shape {}, or [0], got {}",
                      op,
                      argument,
                      c10::str(like.sym_sizes()),
                      c10::str(gradient.sym_sizes()));
  };
  check("hidden_gradient", hidden_gradient, hidden);
  check("weight_gradient", weight_gradient, weight);
}

}  // namespace

void check_grad_loss(const char* op, const at::Tensor& grad_loss) {
  MISTRAL_EXT_CHECK(grad_loss.dim() == 0,
                    "{}: grad_loss must be a scalar, got shape {}",
                    op,
                    c10::str(grad_loss.sym_sizes()));
}

void check_linear_cross_entropy(const at::Tensor& hidden,
                                const at::Tensor& weight,
                                const at::Tensor& labels) {
  const auto op = "linear_cross_entropy";
  check_float(op, "hidden", hidden);
  MISTRAL_EXT_CHECK(hidden.dim() == 2,
                    "{}: hidden must have shape [n, hidden_size], got {}",
                    op,
                    c10::str(hidden.sym_sizes()));
  MISTRAL_EXT_CHECK(
      weight.dim() == 2 && weight.sym_size(0) > 0 && weight.sym_size(1) == hidden.sym_size(1),
      "{}: weight must have shape [vocab_size, {}], got {}",
      op,
      c10::str(hidden.sym_size(1)),
      c10::str(weight.sym_sizes()));
  check_dtype_and_device(op, "weight", weight, "hidden", hidden);
  check_labels(op, labels, "hidden", hidden);
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden,
                                const at::Tensor& weight,
                                const at::Tensor& labels,
                                int64_t ignore_index) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::linear_cross_entropy", "")
                             .typed<decltype(linear_cross_entropy)>();
  return op.call(hidden, weight, labels, ignore_index);
}

ThreeTensors linear_cross_entropy_gradients(const at::Tensor& hidden,
                                            const at::Tensor& weight,
                                            const at::Tensor& labels,
                                            int64_t ignore_index,
                                            bool for_hidden,
                                            bool for_weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::linear_cross_entropy_gradients", "")
                             .typed<decltype(linear_cross_entropy_gradients)>();
  return op.call(hidden, weight, labels, ignore_index, for_hidden, for_weight);
}

TwoTensors linear_cross_entropy_backward(const at::Tensor& grad_loss,
                                         const at::Tensor& hidden,
                                         const at::Tensor& weight,
                                         const at::Tensor& hidden_gradient,
                                         const at::Tensor& weight_gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::linear_cross_entropy_backward", "")
                             .typed<decltype(linear_cross_entropy_backward)>();
  return op.call(grad_loss, hidden, weight, hidden_gradient, weight_gradient);
}

namespace {

at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden,
                                    const at::Tensor& weight,
                                    const at::Tensor& labels,
                                    int64_t ignore_index) {
  return std::get<0>(
      linear_cross_entropy_gradients(hidden, weight, labels, ignore_index, false, false));
}

ThreeTensors linear_cross_entropy_gradients_reference(const at::Tensor& hidden,
                                                      const at::Tensor& weight,
                                                      const at::Tensor& labels,
                                                      int64_t ignore_index,
                                                      bool for_hidden,
                                                      bool for_weight) {
  check_linear_cross_entropy(hidden, weight, labels);
  return linear_cross_entropy_in_chunks(
      hidden, weight, labels, ignore_index, for_hidden, for_weight, &row_losses_reference);
}

TwoTensors linear_cross_entropy_backward_reference(const at::Tensor& grad_loss,
                                                   const at::Tensor& hidden,
                                                   const at::Tensor& weight,
                                                   const at::Tensor& hidden_gradient,
                                                   const at::Tensor& weight_gradient) {
  check_backward(grad_loss, hidden, weight, hidden_gradient, weight_gradient);
  return {scaled(hidden_gradient, grad_loss, hidden.scalar_type()),
          scaled(weight_gradient, grad_loss, weight.scalar_type())};
}

at::Tensor scalar_like(const at::Tensor& hidden) {
  return at::empty({}, hidden.options().dtype(accumulation_dtype(hidden)));
}

at::Tensor linear_cross_entropy_meta(const at::Tensor& hidden,
                                     const at::Tensor& weight,
                                     const at::Tensor& labels,
                                     int64_t /*ignore_index*/) {
  check_linear_cross_entropy(hidden, weight, labels);
  return scalar_like(hidden);
}

at::Tensor empty_or_none(bool wanted, const at::Tensor& like, at::ScalarType dtype) {
  const auto options = like.options().dtype(dtype);
  return wanted ? at::empty_symint(like.sym_sizes(), options) : at::empty({0}, options);
}

ThreeTensors linear_cross_entropy_gradients_meta(const at::Tensor& hidden,
                                                 const at::Tensor& weight,
                                                 const at::Tensor& labels,
                                                 int64_t /*ignore_index*/,
                                                 bool for_hidden,
                                                 bool for_weight) {
  check_linear_cross_entropy(hidden, weight, labels);
  return {scalar_like(hidden),
          empty_or_none(for_hidden, hidden, hidden.scalar_type()),
          empty_or_none(for_weight, weight, accumulation_dtype(weight))};
}

TwoTensors linear_cross_entropy_backward_meta(const at::Tensor& grad_loss,
                                              const at::Tensor& hidden,
                                              const at::Tensor& weight,
                                              const at::Tensor& hidden_gradient,
                                              const at::Tensor& weight_gradient) {
  check_backward(grad_loss, hidden, weight, hidden_gradient, weight_gradient);
  return {at::empty_symint(hidden_gradient.sym_sizes(), hidden.options()),
          at::empty_symint(weight_gradient.sym_sizes(), weight.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("linear_cross_entropy", &linear_cross_entropy_sum);
  m.impl("linear_cross_entropy_gradients", &linear_cross_entropy_gradients_reference);
  m.impl("linear_cross_entropy_backward", &linear_cross_entropy_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("linear_cross_entropy", &linear_cross_entropy_meta);
  m.impl("linear_cross_entropy_gradients", &linear_cross_entropy_gradients_meta);
  m.impl("linear_cross_entropy_backward", &linear_cross_entropy_backward_meta);
}

}  // namespace mistral_ext::ops
