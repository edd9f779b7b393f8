#include <torch/library.h>

#include "mistral_ext/kernels/cuda/rms_norm.h"
#include "mistral_ext/ops/cuda/launch.h"
#include "mistral_ext/ops/cuda/norm_gradient.h"
#include "mistral_ext/ops/rms_norm.h"

namespace mistral_ext::ops {
namespace {

at::Tensor rms_norm_cuda(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm(x, weight, eps);
  const OnDeviceOf device(x);
  const Rows rows(x);
  const auto scales = weight.expect_contiguous();
  auto y = empty_cuda(x.sizes(), x);
  dispatch_float(x.scalar_type(), [&]<typename T>(Type<T>) {
    C10_CUDA_CHECK(kernels::cuda::rms_norm(kernels::cuda::RmsNorm<T>{.x = rows.data<T>(),
                                                                     .x_stride = rows.stride(),
                                                                     .residual = nullptr,
                                                                     .residual_stride = 0,
                                                                     .weight = data<T>(*scales),
                                                                     .y = mutable_data<T>(y),
                                                                     .sum = nullptr,
                                                                     .rows = rows.count(),
                                                                     .hidden = x.size(-1),
                                                                     .eps = eps},
                                           device.stream()));
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward_cuda(const at::Tensor& grad_y,
                                                          const at::Tensor& x,
                                                          const at::Tensor& weight,
                                                          double eps) {
  check_rms_norm_backward(grad_y, x, weight, eps);
  return norm_gradient_cuda(grad_y, /*grad_sum=*/nullptr, x, weight, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) {
  m.impl("rms_norm", &rms_norm_cuda);
  m.impl("rms_norm_backward", &rms_norm_backward_cuda);
}

}  // namespace mistral_ext::ops
