#pragma once

namespace mistral_ext::kernels::cuda {

template <typename A>
__device__ A warp_sum(A value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// The sum over the block's threads, whole warps, in every thread; always in the same order.
// `partial` is shared memory for 32 values, free again once every thread has returned and met a
// barrier; the first barrier in here is one.
template <typename A>
__device__ A block_sum(A value, A* partial) {
  const int lane = threadIdx.x % 32;
  const int warps = blockDim.x / 32;
  value = warp_sum(value);
  __syncthreads();
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(lane < warps ? partial[lane] : A(0));
}

}  // namespace mistral_ext::kernels::cuda
