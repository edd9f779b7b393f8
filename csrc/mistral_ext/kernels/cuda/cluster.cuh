#pragma once

// Clusters of blocks that reach into each other's shared memory (sm_90 and later).

#include "mistral_ext/kernels/cuda/bulk_copy.cuh"

namespace mistral_ext::kernels::cuda {

#if __CUDA_ARCH__ >= 900
__device__ inline int rank_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// Of all threads of a cluster; no later one of them may wait before all have arrived.
__device__ inline void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void wait_for_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where block `rank` of the cluster has what this block has at p.
__device__ inline uint32_t address_in(const void* p, int rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(there)
               : "r"(shared_address(p)), "r"(rank));
  return there;
}

// Stores in another block, which learns of it by the bytes that its barrier, at an address there
// too, has been told to expect. Nothing else has to be ordered.
__device__ inline void store_there(uint32_t address, float x, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(address),
      "f"(x),
      "r"(barrier)
      : "memory");
}
__device__ inline void store_there(uint32_t address, float2 x, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
          address),
      "f"(x.x),
      "f"(x.y),
      "r"(barrier)
      : "memory");
}
__device__ inline void store_there(uint32_t address, const float4& x, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(address),
      "f"(x.x),
      "f"(x.y),
      "f"(x.z),
      "f"(x.w),
      "r"(barrier)
      : "memory");
}
#endif

}  // namespace mistral_ext::kernels::cuda
