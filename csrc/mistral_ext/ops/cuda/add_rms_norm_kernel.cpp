#include <torch/library.h>

#include "mistral_ext/kernels/cuda/rms_norm.h"
#include "mistral_ext/ops/add_rms_norm.h"
#include "mistral_ext/ops/cuda/launch.h"
#include "mistral_ext/ops/cuda/norm_gradient.h"

namespace mistral_ext::ops {
namespace {

std::tuple<at::Tensor, at::Tensor> add_rms_norm_cuda(const at::Tensor& x,
                                                     const at::Tensor& residual,
                                                     const at::Tensor& weight,
                                                     double eps) {
  check_add_rms_norm(x, residual, weight, eps);
  const OnDeviceOf device(x);
  const Rows rows(x);
  const Rows residual_rows(residual);
  const auto scales = weight.expect_contiguous();
  auto y = empty_cuda(x.sizes(), x);
  auto sum = empty_cuda(x.sizes(), x);
  dispatch_float(x.scalar_type(), [&]<typename T>(Type<T>) {
    C10_CUDA_CHECK(
        kernels::cuda::rms_norm(kernels::cuda::RmsNorm<T>{.x = rows.data<T>(),
                                                          .x_stride = rows.stride(),
                                                          .residual = residual_rows.data<T>(),
                                                          .residual_stride = residual_rows.stride(),
                                                          .weight = data<T>(*scales),
                                                          .y = mutable_data<T>(y),
                                                          .sum = mutable_data<T>(sum),
                                                          .rows = rows.count(),
                                                          .hidden = x.size(-1),
                                                          .eps = eps},
                                device.stream()));
  });
  return {std::move(y), std::move(sum)};
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward_cuda(const at::Tensor& grad_y,
                                                              const at::Tensor& grad_sum,
                                                              const at::Tensor& sum,
                                                              const at::Tensor& weight,
                                                              double eps) {
  check_add_rms_norm_backward(grad_y, grad_sum, sum, weight, eps);
  return norm_gradient_cuda(grad_y, &grad_sum, sum, weight, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) {
  m.impl("add_rms_norm", &add_rms_norm_cuda);
  m.impl("add_rms_norm_backward", &add_rms_norm_backward_cuda);
}

}  // namespace mistral_ext::ops
