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

// Returns what the launch returned. All kernels of a step ask for the same division of the memory
// that L1 and shared memory have in common: a multiprocessor has to run empty before it changes
// that.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_step(const StepLaunch& launch,
                        void (*kernel)(Parameters...),
                        dim3 blocks,
                        int threads,
                        size_t shared_bytes,
                        const Arguments&... arguments) {
  if (const auto error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
      error != cudaSuccess) {
    return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = launch.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = launch.dependent && launch.has_bulk_copies ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace mistral_ext::kernels::cuda
