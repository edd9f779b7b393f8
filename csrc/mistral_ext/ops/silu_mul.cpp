#include "mistral_ext/ops/silu_mul.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <torch/library.h>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {

void check_silu_mul(const at::Tensor& gate, const at::Tensor& up) {
  check_float("silu_mul", "gate", gate);
  check_like("silu_mul", "up", up, "gate", gate);
}

void check_silu_mul_backward(const at::Tensor& grad_y,
                             const at::Tensor& gate,
                             const at::Tensor& up) {
  check_float("silu_mul_backward", "gate", gate);
  check_like("silu_mul_backward", "up", up, "gate", gate);
  check_like("silu_mul_backward", "grad_y", grad_y, "gate", gate);
}

at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::silu_mul", "")
                             .typed<decltype(silu_mul)>();
  return op.call(gate, up);
}

std::tuple<at::Tensor, at::Tensor> silu_mul_backward(const at::Tensor& grad_y,
                                                     const at::Tensor& gate,
                                                     const at::Tensor& up) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::silu_mul_backward", "")
                             .typed<decltype(silu_mul_backward)>();
  return op.call(grad_y, gate, up);
}

at::Tensor silu_mul_reference(const at::Tensor& gate, const at::Tensor& up) {
  check_silu_mul(gate, up);
  const auto dtype = accumulation_dtype(gate);
  return at::silu(gate.to(dtype)).mul(up.to(dtype)).to(gate.scalar_type()).contiguous();
}

std::tuple<at::Tensor, at::Tensor> silu_mul_backward_reference(const at::Tensor& grad_y,
                                                               const at::Tensor& gate,
                                                               const at::Tensor& up) {
  check_silu_mul_backward(grad_y, gate, up);
  const auto dtype = accumulation_dtype(gate);
  const auto z = gate.to(dtype);
  const auto grad = grad_y.to(dtype);
  const auto sigmoid = z.sigmoid();
  const auto grad_up = grad * z * sigmoid;
  // silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z)
  const auto grad_gate = grad * up.to(dtype) * sigmoid * (1 + z * (1 - sigmoid));
  return {grad_gate.to(gate.scalar_type()).contiguous(),
          grad_up.to(gate.scalar_type()).contiguous()};
}

namespace {

at::Tensor silu_mul_meta(const at::Tensor& gate, const at::Tensor& up) {
  check_silu_mul(gate, up);
  return at::empty_symint(gate.sym_sizes(), gate.options());
}

std::tuple<at::Tensor, at::Tensor> silu_mul_backward_meta(const at::Tensor& grad_y,
                                                          const at::Tensor& gate,
                                                          const at::Tensor& up) {
  check_silu_mul_backward(grad_y, gate, up);
  return {at::empty_symint(gate.sym_sizes(), gate.options()),
          at::empty_symint(gate.sym_sizes(), gate.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("silu_mul", &silu_mul_reference);
  m.impl("silu_mul_backward", &silu_mul_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("silu_mul", &silu_mul_meta);
  m.impl("silu_mul_backward", &silu_mul_backward_meta);
}

}  // namespace mistral_ext::ops
