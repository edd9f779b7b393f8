#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace mistral_ext::ops {

// sum = x + residual (rounded to x's dtype), y = rms_norm(sum, weight, eps), in one pass.
//   x, residual: [..., hidden], one shape and dtype, any strides.
//   weight: [hidden], x's dtype and device.
//   Returns (y, sum), both contiguous, of x's shape and dtype.
// Throws ValueError where a shape, dtype or device does not fit. Differentiable.
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x,
                                                const at::Tensor& residual,
                                                const at::Tensor& weight,
                                                double eps);

// Returns (grad_x, grad_weight). x and residual enter only through their sum, so grad_x is the
// gradient of both: grad_sum plus what flows back through the norm.
std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward(const at::Tensor& grad_y,
                                                         const at::Tensor& grad_sum,
                                                         const at::Tensor& sum,
                                                         const at::Tensor& weight,
                                                         double eps);

// The same in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
std::tuple<at::Tensor, at::Tensor> add_rms_norm_reference(const at::Tensor& x,
                                                          const at::Tensor& residual,
                                                          const at::Tensor& weight,
                                                          double eps);
std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward_reference(const at::Tensor& grad_y,
                                                                   const at::Tensor& grad_sum,
                                                                   const at::Tensor& sum,
                                                                   const at::Tensor& weight,
                                                                   double eps);

// What every backend, Meta included, calls first.
void check_add_rms_norm(const at::Tensor& x,
                        const at::Tensor& residual,
                        const at::Tensor& weight,
                        double eps);
void check_add_rms_norm_backward(const at::Tensor& grad_y,
                                 const at::Tensor& grad_sum,
                                 const at::Tensor& sum,
                                 const at::Tensor& weight,
                                 double eps);

}  // namespace mistral_ext::ops
