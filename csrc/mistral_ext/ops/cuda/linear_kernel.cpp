#include <torch/library.h>

#include "mistral_ext/kernels/cuda/linear_few_rows.h"
#include "mistral_ext/ops/cuda/launch.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

bool begins_on_16_bytes(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Whether the kernel that streams the weight once serves.
bool few_rows_serves(const at::Tensor& x, const at::Tensor& weight) {
  using kernels::cuda::kFewRows;
  using kernels::cuda::kFewRowsMostFeatures;
  using kernels::cuda::kFewRowsUnit;
  const bool is_half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  const int64_t in_features = weight.size(1);
  return is_half && x.numel() > 0 && weight.numel() > 0 && x.numel() <= kFewRows * in_features &&
         in_features % kFewRowsUnit == 0 && in_features <= kFewRowsMostFeatures &&
         weight.size(0) <= INT32_MAX / 4 && weight.is_contiguous() &&
         begins_on_16_bytes(weight.const_data_ptr()) && compute_capability_major(x.device()) >= 8;
}

at::Tensor linear_cuda(const at::Tensor& x, const at::Tensor& weight) {
  check_linear(x, weight);
  if (!few_rows_serves(x, weight)) return linear_reference(x, weight);
  const OnDeviceOf device(x);
  const bool is_aligned =
      Rows(x).stride() % kernels::cuda::kFewRowsUnit == 0 && begins_on_16_bytes(x.const_data_ptr());
  const auto aligned = is_aligned ? x : x.clone(at::MemoryFormat::Contiguous);
  const Rows rows(aligned);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  auto y = empty_cuda(sizes, x);
  kernels::cuda::StepLaunch launch = {};
  C10_CUDA_CHECK(kernels::cuda::describe_device(&launch));
  launch.stream = device.stream();
  const auto run = [&]<typename T>(Type<T>) {
    kernels::cuda::LinearFewRows<T> args = {};
    args.x = rows.data<T>();
    args.x_stride = rows.stride();
    args.matrices[0] = {data<T>(weight), weight.size(0), mutable_data<T>(y), weight.size(0)};
    args.count = 1;
    args.rows = rows.count();
    args.in_features = weight.size(1);
    args.epilogue = kernels::cuda::LinearEpilogue::kStore;
    C10_CUDA_CHECK(kernels::cuda::linear_few_rows(args, launch));
  };
  if (x.scalar_type() == at::kHalf) {
    run(Type<kernels::float16>());
  } else {
    run(Type<kernels::bfloat16>());
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) { m.impl("linear", &linear_cuda); }

}  // namespace mistral_ext::ops
