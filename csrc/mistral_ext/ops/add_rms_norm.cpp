#include "mistral_ext/ops/add_rms_norm.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/rms_norm.h"

namespace mistral_ext::ops {

void check_add_rms_norm(const at::Tensor& x,
                        const at::Tensor& residual,
                        const at::Tensor& weight,
                        double eps) {
  check_norm("add_rms_norm", "x", x, weight, eps);
  check_like("add_rms_norm", "residual", residual, "x", x);
}

void check_add_rms_norm_backward(const at::Tensor& grad_y,
                                 const at::Tensor& grad_sum,
                                 const at::Tensor& sum,
                                 const at::Tensor& weight,
                                 double eps) {
  check_norm("add_rms_norm_backward", "sum", sum, weight, eps);
  check_like("add_rms_norm_backward", "grad_y", grad_y, "sum", sum);
  check_like("add_rms_norm_backward", "grad_sum", grad_sum, "sum", sum);
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x,
                                                const at::Tensor& residual,
                                                const at::Tensor& weight,
                                                double eps) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::add_rms_norm", "")
                             .typed<decltype(add_rms_norm)>();
  return op.call(x, residual, weight, eps);
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward(const at::Tensor& grad_y,
                                                         const at::Tensor& grad_sum,
                                                         const at::Tensor& sum,
                                                         const at::Tensor& weight,
                                                         double eps) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::add_rms_norm_backward", "")
                             .typed<decltype(add_rms_norm_backward)>();
  return op.call(grad_y, grad_sum, sum, weight, eps);
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_reference(const at::Tensor& x,
                                                          const at::Tensor& residual,
                                                          const at::Tensor& weight,
                                                          double eps) {
  check_add_rms_norm(x, residual, weight, eps);
  const auto sum = x.add(residual).contiguous();
  return {rms_norm_reference(sum, weight, eps), sum};
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward_reference(const at::Tensor& grad_y,
                                                                   const at::Tensor& grad_sum,
                                                                   const at::Tensor& sum,
                                                                   const at::Tensor& weight,
                                                                   double eps) {
  check_add_rms_norm_backward(grad_y, grad_sum, sum, weight, eps);
  const auto [grad_x, grad_weight] = rms_norm_backward_reference(grad_y, sum, weight, eps);
  return {grad_x.add(grad_sum).contiguous(), grad_weight};
}

namespace {

std::tuple<at::Tensor, at::Tensor> add_rms_norm_meta(const at::Tensor& x,
                                                     const at::Tensor& residual,
                                                     const at::Tensor& weight,
                                                     double eps) {
  check_add_rms_norm(x, residual, weight, eps);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint(x.sym_sizes(), x.options())};
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward_meta(const at::Tensor& grad_y,
                                                              const at::Tensor& grad_sum,
                                                              const at::Tensor& sum,
                                                              const at::Tensor& weight,
                                                              double eps) {
  check_add_rms_norm_backward(grad_y, grad_sum, sum, weight, eps);
  return {at::empty_symint(sum.sym_sizes(), sum.options()),
          at::empty_symint(weight.sym_sizes(), weight.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("add_rms_norm", &add_rms_norm_reference);
  m.impl("add_rms_norm_backward", &add_rms_norm_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("add_rms_norm", &add_rms_norm_meta);
  m.impl("add_rms_norm_backward", &add_rms_norm_backward_meta);
}

}  // namespace mistral_ext::ops
