#include <torch/library.h>

#include "mistral_ext/ops/cpu/linear_few_rows.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

at::Tensor linear_cpu(const at::Tensor& x, const at::Tensor& weight) {
  check_linear(x, weight);
  if (!has_few_rows(x, weight)) return linear_reference(x, weight);
  at::Tensor y;
  linear_few_rows(x, weight, {&y, 1});
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) { m.impl("linear", &linear_cpu); }

}  // namespace mistral_ext::ops
