#pragma once

#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

namespace mistral_ext::models {

// A graph of launches.
class StepGraph {
 public:
  StepGraph() = default;
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;
  ~StepGraph() { reset(); }

  template <typename Launch>
  void capture(Launch&& launch) {
    reset();
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    C10_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    const auto launched = launch(stream);
    const auto ended = cudaStreamEndCapture(stream, &graph);
    C10_CUDA_CHECK(cudaStreamDestroy(stream));
    C10_CUDA_CHECK(launched);
    C10_CUDA_CHECK(ended);
    const auto made = cudaGraphInstantiate(&replay_, graph, 0);
    C10_CUDA_CHECK(cudaGraphDestroy(graph));
    C10_CUDA_CHECK(made);
  }

  void launch(cudaStream_t stream) const { C10_CUDA_CHECK(cudaGraphLaunch(replay_, stream)); }

 private:
  void reset() {
    if (replay_ != nullptr) C10_CUDA_CHECK_WARN(cudaGraphExecDestroy(replay_));
    replay_ = nullptr;
  }

  cudaGraphExec_t replay_ = nullptr;
};

}  // namespace mistral_ext::models
