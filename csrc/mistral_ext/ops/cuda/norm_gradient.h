#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace mistral_ext::ops {

// The backward of both norms: (grad_x, grad_weight), with grad_sum, where there is one, added to
// grad_x. The arguments have been checked.
std::tuple<at::Tensor, at::Tensor> norm_gradient_cuda(const at::Tensor& grad_y,
                                                      const at::Tensor* grad_sum,
                                                      const at::Tensor& x,
                                                      const at::Tensor& weight,
                                                      double eps);

}  // namespace mistral_ext::ops
