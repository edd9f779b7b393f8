#pragma once

// Hopper's bulk copies from global to shared memory and the barriers they complete on (sm_90 and
// later). Addresses and sizes are multiples of 16 bytes.

#include <cstdint>

namespace mistral_ext::kernels::cuda {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// A barrier whose phases end with `arrivals` arrivals and all announced bytes. What copies bring is
// there once a phase has ended; arrivals of those who have read it are what the next copy to the
// same place waits for.
struct CopyBarrier {
  uint64_t state;

#if __CUDA_ARCH__ >= 900
  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&state)), "r"(arrivals));
  }

  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(&state)) : "memory");
  }

  __device__ void arrive_and_expect(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(&state)),
                 "r"(bytes)
                 : "memory");
  }

  // Waits for the end of a phase of this parity.
  __device__ void wait(int parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@done bra over;\n"
        "bra again;\n"
        "over:\n"
        "}" ::"r"(shared_address(&state)),
        "r"(parity)
        : "memory");
  }
#endif
};

#if __CUDA_ARCH__ >= 900
// Makes initialised barriers visible to the copy engine.
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// For what is read once.
__device__ inline uint64_t evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline void copy_bulk(
    void* to, const void* from, int bytes, CopyBarrier* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from),
      "r"(bytes),
      "r"(shared_address(&barrier->state)),
      "l"(policy)
      : "memory");
}
#endif

}  // namespace mistral_ext::kernels::cuda
