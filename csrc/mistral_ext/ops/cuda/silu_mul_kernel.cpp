#include <torch/library.h>

#include "mistral_ext/kernels/cuda/silu_mul.h"
#include "mistral_ext/ops/cuda/launch.h"
#include "mistral_ext/ops/silu_mul.h"

namespace mistral_ext::ops {
namespace {

at::Tensor silu_mul_cuda(const at::Tensor& gate, const at::Tensor& up) {
  check_silu_mul(gate, up);
  const OnDeviceOf device(gate);
  auto y = empty_cuda(gate.sizes(), gate);
  dispatch_float(gate.scalar_type(), [&]<typename T>(Type<T>) {
    kernels::cuda::SiluMul<T> args{.gate = data<T>(gate),
                                   .gate_stride = 0,
                                   .up = data<T>(up),
                                   .up_stride = 0,
                                   .y = mutable_data<T>(y),
                                   .rows = 1,
                                   .width = gate.numel()};
    if (gate.is_contiguous() && up.is_contiguous()) {
      C10_CUDA_CHECK(kernels::cuda::silu_mul(args, device.stream()));
      return;
    }
    const Rows gates(gate);
    const Rows ups(up);
    args.gate = gates.data<T>();
    args.gate_stride = gates.stride();
    args.up = ups.data<T>();
    args.up_stride = ups.stride();
    args.rows = gates.count();
    args.width = gate.size(-1);
    C10_CUDA_CHECK(kernels::cuda::silu_mul(args, device.stream()));
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> silu_mul_backward_cuda(const at::Tensor& grad_y,
                                                          const at::Tensor& gate,
                                                          const at::Tensor& up) {
  check_silu_mul_backward(grad_y, gate, up);
  const OnDeviceOf device(gate);
  const auto gradients = grad_y.contiguous();
  const auto gates = gate.contiguous();
  const auto ups = up.contiguous();
  auto grad_gate = empty_cuda(gate.sizes(), gate);
  auto grad_up = empty_cuda(gate.sizes(), gate);
  dispatch_float(gate.scalar_type(), [&]<typename T>(Type<T>) {
    C10_CUDA_CHECK(kernels::cuda::silu_mul_backward(
        kernels::cuda::SiluMulBackward<T>{.grad_y = data<T>(gradients),
                                          .gate = data<T>(gates),
                                          .up = data<T>(ups),
                                          .grad_gate = mutable_data<T>(grad_gate),
                                          .grad_up = mutable_data<T>(grad_up),
                                          .count = gate.numel()},
        device.stream()));
  });
  return {std::move(grad_gate), std::move(grad_up)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) {
  m.impl("silu_mul", &silu_mul_cuda);
  m.impl("silu_mul_backward", &silu_mul_backward_cuda);
}

}  // namespace mistral_ext::ops
