#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "device.cuh"

namespace mistral_ext::trial {

// Loads of 16 bytes, as many on their way as registers allow.
static __global__ void __launch_bounds__(512)
    sweep_kernel(const uint4* from, size_t size, unsigned* out) {
  constexpr int kLoads = 8;
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x * kLoads;
  size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x * kLoads + threadIdx.x;
  unsigned all = 0;
  for (; i + (kLoads - 1) * blockDim.x < size; i += step) {
    uint4 v[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v[j].x), "=r"(v[j].y), "=r"(v[j].z), "=r"(v[j].w)
                   : "l"(from + i + j * blockDim.x));
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) all ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (all == 0x12345) *out = all;
}

// The median in milliseconds.
inline double time_of(const std::function<void(cudaStream_t)>& work,
                      cudaStream_t stream,
                      int times = 40) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  std::vector<float> all;
  for (int i = 0; i < times + 5; ++i) {
    CUDA_CHECK(cudaEventRecord(begin, stream));
    work(stream);
    CUDA_CHECK(cudaEventRecord(end, stream));
    CUDA_CHECK(cudaEventSynchronize(end));
    float ms = 0;
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 5) all.push_back(ms);
  }
  CUDA_CHECK(cudaEventDestroy(begin));
  CUDA_CHECK(cudaEventDestroy(end));
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

class Graph {
 public:
  Graph(const std::function<void()>& work, cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&replay_, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { cudaGraphExecDestroy(replay_); }
  void launch(cudaStream_t stream) const { CUDA_CHECK(cudaGraphLaunch(replay_, stream)); }

 private:
  cudaGraphExec_t replay_ = nullptr;
};

}  // namespace mistral_ext::trial
