// linear_small_batch against sums in fp64, and rows against rows among fewer.
// `linear_small_batch_test small` is for compute-sanitizer.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -I csrc
//     tests/cuda/linear_small_batch_test.cu
//     csrc/mistral_ext/kernels/cuda/{linear_small_batch,linear_few_rows}.cu

#include <cstring>

#include "linear_trial.cuh"
#include "mistral_ext/kernels/cuda/linear_small_batch.h"

namespace mistral_ext::trial {
namespace {

template <typename T>
void run_all(bool small) {
  std::vector<int64_t> ins = {
      8, 64, 576, 2048, 4096, 4104, 5120, 8192, 8200, 14336, 16392, 32768, 131072};
  std::vector<int> rows = {1, 3, 8, 9, 16, 17, 24, 32};
  if (small) {
    ins = {8, 576, 4096, 14336};
    rows = {5, 16, 32};
  }
  for (const int64_t in : ins) {
    std::vector<Case> some;
    for (const int64_t out : {1, 17, 523}) {
      some.push_back({in, {out}, LinearEpilogue::kStore, false});
    }
    some.push_back({in, {263, 65, 130}, LinearEpilogue::kStore, true});
    some.push_back({in, {130}, LinearEpilogue::kAdd, false});
    some.push_back({in, {267, 267}, LinearEpilogue::kSwiGlu, true});
    if (!small) {
      // Enough for every block to have several sets of sums.
      if (in == 64) some.push_back({in, {150000}, LinearEpilogue::kStore, true});
      if (in == 576) some.push_back({in, {70001, 70001}, LinearEpilogue::kSwiGlu, false});
      if (in == 8200) some.push_back({in, {8500}, LinearEpilogue::kAdd, false});
    }
    for (const auto& c : some) {
      Trial<T> trial(c, kernels::cuda::linear_small_batch<T>, kernels::cuda::kSmallBatch);
      for (const int r : rows) {
        trial.check_values(r);
        // Among as many rows as they are summed up alike with.
        if (r == 16) trial.check_rows(r, 5, 9);
        if (r == 32) trial.check_rows(r, 9, 17);
        if (r <= 8) trial.check_rows(r, r - 1, 1);
      }
    }
  }
}

__global__ void compare_kernel(const uint4* a, const uint4* b, int64_t size, int* differ) {
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    if (a[i].x != b[i].x || a[i].y != b[i].y || a[i].z != b[i].z || a[i].w != b[i].w) *differ = 1;
  }
}

// Products that depend on one another, as in a step and as large, give the same every time.
void check_repeats(int rows) {
  using T = bfloat16;
  const int64_t hidden = 4096;
  const int64_t wide = 14336;
  const auto x = random<T>(rows * hidden, 0.1f, 1.0f, 1);
  const auto norm = random<T>(hidden, 1.0f, 0.3f, 2);
  const auto gate = random<T>(wide * hidden, 0.0f, 0.05f, 3);
  const auto up = random<T>(wide * hidden, 0.0f, 0.05f, 4);
  const auto down = random<T>(wide * hidden, 0.0f, 0.05f, 5);
  Array<T> middle(rows * wide, 0xff);
  Array<T> y(rows * hidden, 0xff);
  Array<T> first(rows * hidden);
  Array<int> differ(1, 0);
  StepLaunch launch{nullptr, 0, true, false};
  CUDA_CHECK(kernels::cuda::describe_device(&launch));
  LinearFewRows<T> args = {};
  args.rows = rows;
  args.eps = kEps;
  for (int i = 0; i < 300; ++i) {
    launch.dependent = false;
    args.x = x.data();
    args.x_stride = args.in_features = hidden;
    args.norm_weight = norm.data();
    args.matrices[0] = {gate.data(), wide, middle.data(), wide};
    args.matrices[1] = {up.data(), wide, nullptr, 0};
    args.count = 2;
    args.epilogue = LinearEpilogue::kSwiGlu;
    CUDA_CHECK(kernels::cuda::linear_small_batch(args, launch));
    launch.dependent = true;
    args.x = middle.data();
    args.x_stride = args.in_features = wide;
    args.norm_weight = nullptr;
    args.matrices[0] = {down.data(), hidden, y.data(), hidden};
    args.count = 1;
    args.epilogue = LinearEpilogue::kAdd;
    args.residual = x.data();
    args.residual_stride = hidden;
    CUDA_CHECK(kernels::cuda::linear_small_batch(args, launch));
    if (i == 0) {
      CUDA_CHECK(cudaMemcpyAsync(
          first.data(), y.data(), y.size() * sizeof(T), cudaMemcpyDeviceToDevice, nullptr));
    }
    compare_kernel<<<1, 1024>>>(reinterpret_cast<const uint4*>(first.data()),
                                reinterpret_cast<const uint4*>(y.data()),
                                static_cast<int64_t>(y.size()) / 8,
                                differ.data());
  }
  CUDA_CHECK(cudaDeviceSynchronize());
  ++cases;
  if (differ.host()[0] == 0) return;
  ++failures;
  std::printf("FAILED %d rows: not the same every time\n", rows);
}

}  // namespace
}  // namespace mistral_ext::trial

int main(int count, char** arguments) {
  const bool small = count > 1 && std::strcmp(arguments[1], "small") == 0;
  if (!small) {
    for (const int rows : {4, 8, 16, 32}) mistral_ext::trial::check_repeats(rows);
  }
  mistral_ext::trial::run_all<mistral_ext::kernels::bfloat16>(small);
  mistral_ext::trial::run_all<mistral_ext::kernels::float16>(small);
  std::printf("linear_small_batch: %d checks, %d failed\n",
              mistral_ext::trial::cases,
              mistral_ext::trial::failures);
  return mistral_ext::trial::failures == 0 ? 0 : 1;
}
