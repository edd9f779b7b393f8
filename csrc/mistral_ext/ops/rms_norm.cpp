#include "mistral_ext/ops/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
void check_norm(const char* op,
                const char* argument,
                const at::Tensor& x,
                const at::Tensor& weight,
                double eps) {
  check_float(op, argument, x);
  MISTRAL_EXT_CHECK(
      x.dim() >= 1, "{}: {} must have at least one dimension, got a scalar", op, argument);
  MISTRAL_EXT_CHECK(weight.dim() == 1 && weight.sym_size(0) == x.sym_size(-1),
                    "{}: weight must have shape [{}], got {}",
                    op,
                    c10::str(x.sym_size(-1)),
                    c10::str(weight.sym_sizes()));
  check_dtype_and_device(op, "weight", weight, argument, x);
  MISTRAL_EXT_CHECK(
      std::isfinite(eps) && eps >= 0, "{}: eps must be finite and not negative, got {}", op, eps);
}

void check_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_norm("rms_norm", "x", x, weight, eps);
}

void check_rms_norm_backward(const at::Tensor& grad_y,
                             const at::Tensor& x,
                             const at::Tensor& weight,
                             double eps) {
  check_norm("rms_norm_backward", "x", x, weight, eps);
  check_like("rms_norm_backward", "grad_y", grad_y, "x", x);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::rms_norm", "")
                             .typed<decltype(rms_norm)>();
  return op.call(x, weight, eps);
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad_y,
                                                     const at::Tensor& x,
                                                     const at::Tensor& weight,
                                                     double eps) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::rms_norm_backward", "")
                             .typed<decltype(rms_norm_backward)>();
  return op.call(grad_y, x, weight, eps);
}

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm(x, weight, eps);
  const auto wide = x.to(accumulation_dtype(x));
  const auto normalised = wide * wide.square().mean(-1, /*keepdim=*/true).add(eps).rsqrt();
  return normalised.to(x.scalar_type()).mul(weight).contiguous();
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward_reference(const at::Tensor& grad_y,
                                                               const at::Tensor& x,
                                                               const at::Tensor& weight,
                                                               double eps) {
  check_rms_norm_backward(grad_y, x, weight, eps);
  const auto dtype = accumulation_dtype(x);
  const auto wide = x.to(dtype);
  const auto wide_grad = grad_y.to(dtype);
  const auto scale = wide.square().mean(-1, /*keepdim=*/true).add(eps).rsqrt();
  const auto normalised = wide * scale;
  const auto grad_normalised = wide_grad * weight.to(dtype);
  const auto along = grad_normalised.mul(normalised).mean(-1, /*keepdim=*/true);
  const auto grad_x = (grad_normalised - normalised * along) * scale;
  const auto rows = wide_grad.mul(normalised.to(x.scalar_type()));
  const auto grad_weight = x.dim() > 1 ? rows.flatten(0, -2).sum(0) : rows;
  return {grad_x.to(x.scalar_type()).contiguous(), grad_weight.to(x.scalar_type())};
}

namespace {

at::Tensor rms_norm_meta(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm(x, weight, eps);
  return at::empty_symint(x.sym_sizes(), x.options());
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward_meta(const at::Tensor& grad_y,
                                                          const at::Tensor& x,
                                                          const at::Tensor& weight,
                                                          double eps) {
  check_rms_norm_backward(grad_y, x, weight, eps);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint(weight.sym_sizes(), weight.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("rms_norm", &rms_norm_reference);
  m.impl("rms_norm_backward", &rms_norm_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("rms_norm", &rms_norm_meta);
  m.impl("rms_norm_backward", &rms_norm_backward_meta);
}

}  // namespace mistral_ext::ops
