#include <ATen/Parallel.h>
#include <torch/library.h>

#include "mistral_ext/kernels/cpu/rms_norm.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/cpu/norm_gradient.h"
#include "mistral_ext/ops/rms_norm.h"

namespace mistral_ext::ops {
namespace {

at::Tensor rms_norm_cpu(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm(x, weight, eps);
  const int64_t hidden = x.size(-1);
  const Rows rows(x);
  const auto scales = weight.expect_contiguous();
  auto y = empty_cpu(x.sizes(), x);
  dispatch_float(x.scalar_type(), [&]<typename T>(Type<T>) {
    const auto kernel = MISTRAL_EXT_AT_LEVEL(rms_norm<T>);
    const T* from = rows.data<T>();
    const T* weights = data<T>(*scales);
    T* to = mutable_data<T>(y);
    at::parallel_for(0, rows.count(), row_grain(hidden), [&](int64_t begin, int64_t end) {
      kernel(from + begin * rows.stride(),
             rows.stride(),
             weights,
             to + begin * hidden,
             end - begin,
             hidden,
             eps);
    });
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward_cpu(const at::Tensor& grad_y,
                                                         const at::Tensor& x,
                                                         const at::Tensor& weight,
                                                         double eps) {
  check_rms_norm_backward(grad_y, x, weight, eps);
  return norm_gradient(grad_y, /*grad_sum=*/nullptr, x, weight, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("rms_norm", &rms_norm_cpu);
  m.impl("rms_norm_backward", &rms_norm_backward_cpu);
}

}  // namespace mistral_ext::ops
