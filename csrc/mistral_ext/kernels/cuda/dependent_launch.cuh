#pragma once

// Programmatic dependent launch: a kernel starts while the one ahead of it in the stream still
// runs, and waits for it where it first needs its results. Every kernel of a step calls
// let_next_start at once, and wait_for_previous before it reads or writes what another one of the
// step touches: several later ones may be there already. On GPUs without it kernels follow one
// another.

#include <cuda_runtime.h>

#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// How a kernel of a step is launched, in clusters of so many blocks.
class StepConfig {
 public:
  StepConfig(
      const StepLaunch& launch, dim3 cluster, dim3 blocks, int threads, size_t shared_bytes) {
    config_.gridDim = blocks;
    config_.blockDim = dim3(static_cast<unsigned>(threads));
    config_.dynamicSmemBytes = shared_bytes;
    config_.stream = launch.stream;
    config_.attrs = attributes_;
    if (launch.dependent && launch.has_bulk_copies) {
      auto& attribute = attributes_[config_.numAttrs++];
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster.x * cluster.y * cluster.z > 1) {
      auto& attribute = attributes_[config_.numAttrs++];
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim = {cluster.x, cluster.y, cluster.z};
    }
  }
  StepConfig(const StepConfig&) = delete;
  StepConfig& operator=(const StepConfig&) = delete;

  const cudaLaunchConfig_t* get() const { return &config_; }

 private:
  cudaLaunchConfig_t config_ = {};
  cudaLaunchAttribute attributes_[2] = {};
};

// Returns what the launch returned. All kernels of a step ask for the same division of the memory
// that L1 and shared memory have in common: a multiprocessor has to run empty before it changes
// that.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_clusters(const StepLaunch& launch,
                            void (*kernel)(Parameters...),
                            dim3 cluster,
                            dim3 blocks,
                            int threads,
                            size_t shared_bytes,
                            const Arguments&... arguments) {
  if (const auto error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
      error != cudaSuccess) {
    return error;
  }
  const StepConfig config(launch, cluster, blocks, threads, shared_bytes);
  return cudaLaunchKernelEx(config.get(), kernel, arguments...);
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch_step(const StepLaunch& launch,
                        void (*kernel)(Parameters...),
                        dim3 blocks,
                        int threads,
                        size_t shared_bytes,
                        const Arguments&... arguments) {
  return launch_clusters(launch, kernel, 1, blocks, threads, shared_bytes, arguments...);
}

}  // namespace mistral_ext::kernels::cuda
