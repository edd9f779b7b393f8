#pragma once

#include <cuda_runtime_api.h>

namespace mistral_ext::kernels::cuda {

// Bytes of weights that a multiprocessor has asked for and not got: more of them delay what every
// kernel waits for at its end, fewer leave the memory idle.
inline constexpr int kBytesInFlight = 48 * 1024;

// Where and how the kernels of a decode step are launched.
struct StepLaunch {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  // Of the GPU, from Hopper on: bulk copies, shared memory for a ring of them, dependent launches.
  bool has_bulk_copies = false;
  // The kernel may start before the one ahead in the stream has ended: that one is of the same
  // step, and writes no weights.
  bool dependent = false;
  int bytes_in_flight = kBytesInFlight;
};

// Fills in what depends on the current device. Returns what the queries returned.
cudaError_t describe_device(StepLaunch* launch);

}  // namespace mistral_ext::kernels::cuda
