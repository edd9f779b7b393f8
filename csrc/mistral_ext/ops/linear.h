#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <tuple>
#include <vector>

namespace mistral_ext::ops {

// y = x weight^T, fp32 accumulation for the 16-bit types.
//   x: [..., in_features], weight: [out_features, in_features]; one floating dtype and device, any
//     strides.
//   Returns [..., out_features], contiguous, x's dtype.
// A product of few rows streams the weight once through a kernel of ours (on CUDA that of up to 8,
// in 16 bits, of a dense weight with in_features a multiple of 8), where a row's result does not
// depend on the rows beside it; wider ones are a library's. Throws ValueError where a shape, dtype
// or device does not fit. Differentiable. Call it as ops::linear: argument-dependent lookup finds
// at::linear too.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

// linear(x, weight) for several weights of one input (query, key, value; gate, up): the same
// results, bit for bit. On CPU, without gradients, few rows read all the weights in one parallel
// region.
std::vector<at::Tensor> linear_many(const at::Tensor& x, at::ArrayRef<at::Tensor> weights);

// Returns (grad_x, grad_weight).
std::tuple<at::Tensor, at::Tensor> linear_backward(const at::Tensor& grad_y,
                                                   const at::Tensor& x,
                                                   const at::Tensor& weight);

// The same in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight);
std::tuple<at::Tensor, at::Tensor> linear_backward_reference(const at::Tensor& grad_y,
                                                             const at::Tensor& x,
                                                             const at::Tensor& weight);

// What every backend, Meta included, calls first.
void check_linear(const at::Tensor& x, const at::Tensor& weight);
void check_linear_backward(const at::Tensor& grad_y, const at::Tensor& x, const at::Tensor& weight);

}  // namespace mistral_ext::ops
