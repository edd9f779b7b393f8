#pragma once

// Hopper's copies of boxes out of tensors into shared memory (sm_90 and later). What lies outside
// the tensor arrives as zeros.

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "mistral_ext/kernels/cuda/bulk_copy.cuh"

namespace mistral_ext::kernels::cuda {

inline constexpr int kAtomColumns = 64;  // 16-bit elements
inline constexpr int kAtomRowBytes = 128;

// A tensor of 16-bit elements [outer, heads, rows, columns], the elements of a row side by side,
// strides in elements.
struct TensorShape {
  const void* data;
  int64_t columns, rows, heads, outer;
  int64_t row_stride, head_stride, outer_stride;
};

// Writes the map by which boxes of kAtomColumns columns and box_rows rows are copied. In shared
// memory, where a box begins on 1024 bytes, the 16-byte units of row r are permuted by r % 8.
// data and strides are multiples of 16 bytes.
cudaError_t describe_tensor(const TensorShape& shape, int box_rows, CUtensorMap* map);

// A stage of a ring, and which time round it is.
template <int kStages>
struct Turn {
  int stage = 0;
  int parity = 0;

  __device__ void next() {
    stage = stage + 1 == kStages ? 0 : stage + 1;
    parity ^= stage == 0 ? 1 : 0;
  }
};

#if __CUDA_ARCH__ >= 900
// Orders this thread's reads and writes of shared memory before later copies into it, of which
// another thread is told after this.
__device__ inline void fence_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void copy_box(void* to,
                                const CUtensorMap* from,
                                int column,
                                int row,
                                int head,
                                int outer,
                                CopyBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(from),
      "r"(shared_address(&barrier->state)),
      "r"(column),
      "r"(row),
      "r"(head),
      "r"(outer)
      : "memory");
}
#endif

}  // namespace mistral_ext::kernels::cuda
