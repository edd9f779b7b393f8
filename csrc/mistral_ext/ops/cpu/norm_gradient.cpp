#include "mistral_ext/ops/cpu/norm_gradient.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <type_traits>

#include "mistral_ext/kernels/cpu/rms_norm.h"
#include "mistral_ext/ops/cpu/dispatch.h"

namespace mistral_ext::ops {
namespace {

// Rows that share one partial sum of the weight's gradient. Fixed, so that the sum's order, and
// with it the result, does not depend on the number of threads.
constexpr int64_t kBlock = 32;

}  // namespace

std::tuple<at::Tensor, at::Tensor> norm_gradient(const at::Tensor& grad_y,
                                                 const at::Tensor* grad_sum,
                                                 const at::Tensor& x,
                                                 const at::Tensor& weight,
                                                 double eps) {
  const int64_t hidden = x.size(-1);
  const int64_t rows = hidden == 0 ? 0 : x.numel() / hidden;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  const auto gradients = grad_y.contiguous();
  const auto sum_gradients = grad_sum != nullptr ? grad_sum->contiguous() : at::Tensor();
  const auto inputs = x.contiguous();
  const auto scales = weight.contiguous();
  auto grad_x = empty_cpu(x.sizes(), x);
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto partial = at::zeros({blocks, hidden}, x.options().dtype(wide));
  dispatch_float(x.scalar_type(), [&]<typename T>(Type<T>) {
    using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const auto kernel = MISTRAL_EXT_AT_LEVEL(rms_norm_backward<T, Accumulator>);
    const T* from_gradient = data<T>(gradients);
    const T* from_sum = grad_sum != nullptr ? data<T>(sum_gradients) : nullptr;
    const T* from = data<T>(inputs);
    const T* weights = data<T>(scales);
    T* to = mutable_data<T>(grad_x);
    auto* to_weight = mutable_data<Accumulator>(partial);
    at::parallel_for(0, blocks, row_grain(kBlock * hidden), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t at = block * kBlock * hidden;
        kernel(from_gradient + at,
               from_sum != nullptr ? from_sum + at : nullptr,
               from + at,
               weights,
               to + at,
               to_weight + block * hidden,
               std::min(kBlock, rows - block * kBlock),
               hidden,
               eps);
      }
    });
  });
  return {grad_x, partial.sum(0).to(x.scalar_type())};
}

}  // namespace mistral_ext::ops
