#include <ATen/Parallel.h>
#include <torch/library.h>

#include "mistral_ext/kernels/cpu/silu_mul.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/silu_mul.h"

namespace mistral_ext::ops {
namespace {

at::Tensor silu_mul_cpu(const at::Tensor& gate, const at::Tensor& up) {
  check_silu_mul(gate, up);
  auto y = empty_cpu(gate.sizes(), gate);
  dispatch_float(gate.scalar_type(), [&]<typename T>(Type<T>) {
    const auto kernel = MISTRAL_EXT_AT_LEVEL(silu_mul<T>);
    T* to = mutable_data<T>(y);
    if (gate.is_contiguous() && up.is_contiguous()) {
      const T* from_gate = data<T>(gate);
      const T* from_up = data<T>(up);
      at::parallel_for(0, y.numel(), kGrain, [&](int64_t begin, int64_t end) {
        kernel(from_gate + begin, from_up + begin, to + begin, end - begin);
      });
      return;
    }
    const Rows gates(gate);
    const Rows ups(up);
    const int64_t width = gate.size(-1);
    const T* from_gate = gates.data<T>();
    const T* from_up = ups.data<T>();
    at::parallel_for(0, gates.count(), row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        kernel(from_gate + row * gates.stride(),
               from_up + row * ups.stride(),
               to + row * width,
               width);
      }
    });
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> silu_mul_backward_cpu(const at::Tensor& grad_y,
                                                         const at::Tensor& gate,
                                                         const at::Tensor& up) {
  check_silu_mul_backward(grad_y, gate, up);
  const auto gradients = grad_y.contiguous();
  const auto gates = gate.contiguous();
  const auto ups = up.contiguous();
  auto grad_gate = empty_cpu(gate.sizes(), gate);
  auto grad_up = empty_cpu(gate.sizes(), gate);
  dispatch_float(gate.scalar_type(), [&]<typename T>(Type<T>) {
    const auto kernel = MISTRAL_EXT_AT_LEVEL(silu_mul_backward<T>);
    const T* from_gradient = data<T>(gradients);
    const T* from_gate = data<T>(gates);
    const T* from_up = data<T>(ups);
    T* to_gate = mutable_data<T>(grad_gate);
    T* to_up = mutable_data<T>(grad_up);
    at::parallel_for(0, gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernel(from_gradient + begin,
             from_gate + begin,
             from_up + begin,
             to_gate + begin,
             to_up + begin,
             end - begin);
    });
  });
  return {std::move(grad_gate), std::move(grad_up)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("silu_mul", &silu_mul_cpu);
  m.impl("silu_mul_backward", &silu_mul_backward_cpu);
}

}  // namespace mistral_ext::ops
