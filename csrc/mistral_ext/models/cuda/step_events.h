#pragma once

#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

namespace mistral_ext::models {

inline constexpr int kAhead = 2;  // steps that are launched before the first of them has ended

// Of the last steps, whether there are rows left: copied back after each, looked at kAhead later.
class Reports {
 public:
  Reports() {
    C10_CUDA_CHECK(cudaMallocHost(&running_, kAhead * sizeof(int)));
    for (auto& event : events_) {
      C10_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }
  }
  Reports(const Reports&) = delete;
  Reports& operator=(const Reports&) = delete;
  ~Reports() {
    for (auto& event : events_) C10_CUDA_CHECK_WARN(cudaEventDestroy(event));
    C10_CUDA_CHECK_WARN(cudaFreeHost(running_));
  }

  void ask(int64_t step, const int* running, cudaStream_t stream) {
    C10_CUDA_CHECK(cudaMemcpyAsync(
        running_ + step % kAhead, running, sizeof(int), cudaMemcpyDeviceToHost, stream));
    C10_CUDA_CHECK(cudaEventRecord(events_[step % kAhead], stream));
  }

  bool wait(int64_t step) {
    C10_CUDA_CHECK(cudaEventSynchronize(events_[step % kAhead]));
    return running_[step % kAhead] != 0;
  }

 private:
  int* running_ = nullptr;
  std::array<cudaEvent_t, kAhead> events_ = {};
};

// Orders what uses one thing on one stream after the other.
class LastUse {
 public:
  LastUse() { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  LastUse(const LastUse&) = delete;
  LastUse& operator=(const LastUse&) = delete;
  ~LastUse() { C10_CUDA_CHECK_WARN(cudaEventDestroy(event_)); }

  void wait(cudaStream_t stream) const { C10_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0)); }
  void record(cudaStream_t stream) const { C10_CUDA_CHECK(cudaEventRecord(event_, stream)); }
  // On the host.
  void wait() const { C10_CUDA_CHECK_WARN(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace mistral_ext::models
