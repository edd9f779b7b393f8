#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace mistral_ext::ops {

// y = silu(gate) * up, silu(z) = z / (1 + e^-z), element by element in fp32 (fp64 for fp64),
// rounded once (Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202).
//   gate, up: one shape and floating dtype, any strides.
//   Returns a contiguous tensor of their shape and dtype.
// Throws ValueError where they differ. Differentiable.
at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up);

// Returns (grad_gate, grad_up).
std::tuple<at::Tensor, at::Tensor> silu_mul_backward(const at::Tensor& grad_y,
                                                     const at::Tensor& gate,
                                                     const at::Tensor& up);

// The same in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
at::Tensor silu_mul_reference(const at::Tensor& gate, const at::Tensor& up);
std::tuple<at::Tensor, at::Tensor> silu_mul_backward_reference(const at::Tensor& grad_y,
                                                               const at::Tensor& gate,
                                                               const at::Tensor& up);

// What every backend, Meta included, calls first.
void check_silu_mul(const at::Tensor& gate, const at::Tensor& up);
void check_silu_mul_backward(const at::Tensor& grad_y,
                             const at::Tensor& gate,
                             const at::Tensor& up);

}  // namespace mistral_ext::ops
