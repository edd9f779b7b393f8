#include <torch/library.h>

#include "mistral_ext/ops/cpu/linear_few_rows.h"
#include "mistral_ext/ops/cpu/linear_many_rows.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

at::Tensor linear_cpu(const at::Tensor& x, const at::Tensor& weight) {
  check_linear(x, weight);
  if (!has_few_rows(x, weight)) return linear_many_rows(x, weight);
  at::Tensor y;
  linear_few_rows(x, weight, {&y, 1});
  return y;
}

std::tuple<at::Tensor, at::Tensor> linear_backward_cpu(const at::Tensor& grad_y,
                                                       const at::Tensor& x,
                                                       const at::Tensor& weight) {
  check_linear_backward(grad_y, x, weight);
  const auto rows = x.dim() > 1 ? x.flatten(0, -2) : x.unsqueeze(0);
  const auto grad_rows = grad_y.dim() > 1 ? grad_y.flatten(0, -2) : grad_y.unsqueeze(0);
  return {linear_many_rows(grad_y, weight.t()), linear_many_rows(grad_rows.t(), rows.t())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("linear", &linear_cpu);
  m.impl("linear_backward", &linear_backward_cpu);
}

}  // namespace mistral_ext::ops
