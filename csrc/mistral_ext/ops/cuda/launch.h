#pragma once

// What the CUDA kernels of the operators share.

#include <ATen/core/Tensor.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "mistral_ext/ops/dispatch.h"
#include "mistral_ext/ops/rows.h"

namespace mistral_ext::ops {

// A contiguous tensor of these sizes with x's dtype, on x's device.
inline at::Tensor empty_cuda(at::IntArrayRef sizes, const at::Tensor& x) {
  return at::detail::empty_cuda(sizes, x.scalar_type(), x.device(), /*memory_format=*/std::nullopt);
}

inline int device_attribute(cudaDeviceAttr attribute, const at::Device& device) {
  int value = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device.index()));
  return value;
}

// 9 on Hopper.
inline int compute_capability_major(const at::Device& device) {
  return device_attribute(cudaDevAttrComputeCapabilityMajor, device);
}

inline int multiprocessors(const at::Device& device) {
  return device_attribute(cudaDevAttrMultiProcessorCount, device);
}

// Makes x's device the current one for its life.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const at::Tensor& x) : guard_(x.device()) {}

  // The current stream there, on which kernels are launched.
  cudaStream_t stream() const { return c10::cuda::getCurrentCUDAStream(); }

 private:
  c10::cuda::CUDAGuard guard_;
};

}  // namespace mistral_ext::ops
