#include "mistral_ext/ops/linear.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
namespace {

void check_operands(const char* op, const at::Tensor& x, const at::Tensor& weight) {
  check_float(op, "x", x);
  MISTRAL_EXT_CHECK(x.dim() >= 1, "{}: x must have at least one dimension, got a scalar", op);
  MISTRAL_EXT_CHECK(weight.dim() == 2 && weight.sym_size(1) == x.sym_size(-1),
                    "{}: weight must have shape [out_features, {}], got {}",
                    op,
                    c10::str(x.sym_size(-1)),
                    c10::str(weight.sym_sizes()));
  check_dtype_and_device(op, "weight", weight, "x", x);
}

// [..., in_features] with the last dimension become out_features.
c10::SymDimVector output_sizes(const at::Tensor& x, const at::Tensor& weight) {
  c10::SymDimVector sizes(x.sym_sizes());
  sizes.back() = weight.sym_size(0);
  return sizes;
}

}  // namespace

void check_linear(const at::Tensor& x, const at::Tensor& weight) {
  check_operands("linear", x, weight);
}

void check_linear_backward(const at::Tensor& grad_y,
                           const at::Tensor& x,
                           const at::Tensor& weight) {
  check_operands("linear_backward", x, weight);
  const auto sizes = output_sizes(x, weight);
  MISTRAL_EXT_CHECK(grad_y.sym_sizes() == c10::SymIntArrayRef(sizes),
                    "linear_backward: grad_y must have shape {}, got {}",
                    c10::str(c10::SymIntArrayRef(sizes)),
                    c10::str(grad_y.sym_sizes()));
  check_dtype_and_device("linear_backward", "grad_y", grad_y, "x", x);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::linear", "")
                             .typed<decltype(linear)>();
  return op.call(x, weight);
}

std::tuple<at::Tensor, at::Tensor> linear_backward(const at::Tensor& grad_y,
                                                   const at::Tensor& x,
                                                   const at::Tensor& weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::linear_backward", "")
                             .typed<decltype(linear_backward)>();
  return op.call(grad_y, x, weight);
}

at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight) {
  check_linear(x, weight);
  return at::linear(x, weight).contiguous();
}

std::tuple<at::Tensor, at::Tensor> linear_backward_reference(const at::Tensor& grad_y,
                                                             const at::Tensor& x,
                                                             const at::Tensor& weight) {
  check_linear_backward(grad_y, x, weight);
  const auto rows = x.dim() > 1 ? x.flatten(0, -2) : x.unsqueeze(0);
  const auto grad_rows = grad_y.dim() > 1 ? grad_y.flatten(0, -2) : grad_y.unsqueeze(0);
  return {grad_y.matmul(weight).contiguous(), grad_rows.t().matmul(rows).contiguous()};
}

namespace {

at::Tensor linear_meta(const at::Tensor& x, const at::Tensor& weight) {
  check_linear(x, weight);
  return at::empty_symint(output_sizes(x, weight), x.options());
}

std::tuple<at::Tensor, at::Tensor> linear_backward_meta(const at::Tensor& grad_y,
                                                        const at::Tensor& x,
                                                        const at::Tensor& weight) {
  check_linear_backward(grad_y, x, weight);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint(weight.sym_sizes(), weight.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("linear", &linear_reference);
  m.impl("linear_backward", &linear_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("linear", &linear_meta);
  m.impl("linear_backward", &linear_backward_meta);
}

}  // namespace mistral_ext::ops
