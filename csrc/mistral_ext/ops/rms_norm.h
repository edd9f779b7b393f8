#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace mistral_ext::ops {

// y = cast(x / sqrt(mean(x^2) + eps)) * weight, the mean over the last dimension in fp32 (fp64 for
// fp64), cast back to x's dtype before the product with the weight (Zhang & Sennrich 2019, "Root
// Mean Square Layer Normalization", arXiv 1910.07467; the order of the cast is Hugging Face's
// MistralRMSNorm).
//   x: [..., hidden], floating point, any strides.
//   weight: [hidden], x's dtype and device.
//   Returns a contiguous tensor of x's shape and dtype.
// Throws ValueError where a shape, dtype or device does not fit. Differentiable.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Returns (grad_x, grad_weight) for grad_y of x's shape and dtype. The reciprocal of the root mean
// square is computed again from x: cheaper than keeping it.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad_y,
                                                     const at::Tensor& x,
                                                     const at::Tensor& weight,
                                                     double eps);

// The same in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps);
std::tuple<at::Tensor, at::Tensor> rms_norm_backward_reference(const at::Tensor& grad_y,
                                                               const at::Tensor& x,
                                                               const at::Tensor& weight,
                                                               double eps);

// What every backend, Meta included, calls first.
void check_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
void check_rms_norm_backward(const at::Tensor& grad_y,
                             const at::Tensor& x,
                             const at::Tensor& weight,
                             double eps);

// What the norms' checks share: `argument` is the name of the tensor to be normalised.
void check_norm(const char* op,
                const char* argument,
                const at::Tensor& x,
                const at::Tensor& weight,
                double eps);

}  // namespace mistral_ext::ops
