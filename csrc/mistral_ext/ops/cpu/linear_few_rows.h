#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <span>

namespace mistral_ext::ops {

// Whether x weight^T, checked, is a product of few rows that the CPU kernel of ours takes: there,
// reading the weight is all the time, and the kernel reads it once at the speed of memory.
bool has_few_rows(const at::Tensor& x, const at::Tensor& weight);

// x weights[i]^T for weights that has_few_rows has let through, in one parallel region.
//   Returns tensors of [..., out_features of weights[i]], the same bits as one by one.
void linear_few_rows(const at::Tensor& x,
                     at::ArrayRef<at::Tensor> weights,
                     std::span<at::Tensor> ys);

}  // namespace mistral_ext::ops
