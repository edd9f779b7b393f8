#include "mistral_ext/ops/cuda/norm_gradient.h"

#include <ATen/ops/empty.h>

#include <type_traits>

#include "mistral_ext/kernels/cuda/rms_norm.h"
#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cuda/launch.h"

namespace mistral_ext::ops {

std::tuple<at::Tensor, at::Tensor> norm_gradient_cuda(const at::Tensor& grad_y,
                                                      const at::Tensor* grad_sum,
                                                      const at::Tensor& x,
                                                      const at::Tensor& weight,
                                                      double eps) {
  const OnDeviceOf device(x);
  const int64_t hidden = x.size(-1);
  const int64_t rows = hidden == 0 ? 0 : x.numel() / hidden;
  const int64_t chunks =
      (rows + kernels::cuda::kNormGradientRows - 1) / kernels::cuda::kNormGradientRows;
  const auto gradients = grad_y.contiguous();
  const auto sum_gradients = grad_sum != nullptr ? grad_sum->contiguous() : at::Tensor();
  const auto inputs = x.contiguous();
  const auto scales = weight.contiguous();
  auto grad_x = empty_cuda(x.sizes(), x);
  const auto wide = x.options().dtype(accumulation_dtype(x));
  auto partial = at::empty({chunks, hidden}, wide);
  auto row_scales = at::empty({rows}, wide);
  dispatch_float(x.scalar_type(), [&]<typename T>(Type<T>) {
    using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;
    C10_CUDA_CHECK(kernels::cuda::rms_norm_backward(
        kernels::cuda::RmsNormBackward<T, Accumulator>{
            .grad_y = data<T>(gradients),
            .grad_sum = grad_sum != nullptr ? data<T>(sum_gradients) : nullptr,
            .x = data<T>(inputs),
            .weight = data<T>(scales),
            .grad_x = mutable_data<T>(grad_x),
            .grad_weight = mutable_data<Accumulator>(partial),
            .scales = mutable_data<Accumulator>(row_scales),
            .rows = rows,
            .hidden = hidden,
            .eps = eps},
        device.stream()));
  });
  return {std::move(grad_x), partial.sum(0).to(x.scalar_type())};
}

}  // namespace mistral_ext::ops
