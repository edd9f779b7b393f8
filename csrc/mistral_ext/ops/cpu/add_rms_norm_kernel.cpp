#include <ATen/Parallel.h>
#include <torch/library.h>

#include "mistral_ext/kernels/cpu/rms_norm.h"
#include "mistral_ext/ops/add_rms_norm.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/cpu/norm_gradient.h"

namespace mistral_ext::ops {
namespace {

std::tuple<at::Tensor, at::Tensor> add_rms_norm_cpu(const at::Tensor& x,
                                                    const at::Tensor& residual,
                                                    const at::Tensor& weight,
                                                    double eps) {
  check_add_rms_norm(x, residual, weight, eps);
  const int64_t hidden = x.size(-1);
  const Rows rows(x);
  const Rows residual_rows(residual);
  const auto scales = weight.expect_contiguous();
  auto y = empty_cpu(x.sizes(), x);
  auto sum = empty_cpu(x.sizes(), x);
  dispatch_float(x.scalar_type(), [&]<typename T>(Type<T>) {
    const auto kernel = MISTRAL_EXT_AT_LEVEL(add_rms_norm<T>);
    const T* from = rows.data<T>();
    const T* from_residual = residual_rows.data<T>();
    const T* weights = data<T>(*scales);
    T* to = mutable_data<T>(y);
    T* to_sum = mutable_data<T>(sum);
    at::parallel_for(0, rows.count(), row_grain(hidden), [&](int64_t begin, int64_t end) {
      kernel(from + begin * rows.stride(),
             rows.stride(),
             from_residual + begin * residual_rows.stride(),
             residual_rows.stride(),
             weights,
             to + begin * hidden,
             to_sum + begin * hidden,
             end - begin,
             hidden,
             eps);
    });
  });
  return {std::move(y), std::move(sum)};
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm_backward_cpu(const at::Tensor& grad_y,
                                                             const at::Tensor& grad_sum,
                                                             const at::Tensor& sum,
                                                             const at::Tensor& weight,
                                                             double eps) {
  check_add_rms_norm_backward(grad_y, grad_sum, sum, weight, eps);
  return norm_gradient(grad_y, &grad_sum, sum, weight, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("add_rms_norm", &add_rms_norm_cpu);
  m.impl("add_rms_norm_backward", &add_rms_norm_backward_cpu);
}

}  // namespace mistral_ext::ops
