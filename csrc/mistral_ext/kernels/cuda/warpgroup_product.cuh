#pragma once

// Hopper's matrix products of a warpgroup, four warps: they run beside the warps' other work until
// they are waited for (wgmma, sm_90a alone).
//
// Operands in shared memory lie in atoms of 64 columns, 128 bytes, by any number of rows, as the
// tensor copies of tensor_copy.cuh leave them: the 16-byte units of row r are permuted by r % 8.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "mistral_ext/kernels/cuda/tensor_copy.cuh"
#include "mistral_ext/kernels/types.h"

namespace mistral_ext::kernels::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What a product is told of an operand that begins at a shared address.
//   atom_step: bytes from one atom to the next, where it is rows that are summed over.
__device__ inline uint64_t describe_operand(uint32_t address, int atom_step) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kStep = 8 * kAtomRowBytes;
  return kSwizzle128 | (kStep >> 4) << 32 | static_cast<uint64_t>(atom_step >> 4) << 16 |
         (address >> 4 & 0x3FFF);
}

// An operand further on by so many bytes.
__device__ inline uint64_t advance(uint64_t operand, int bytes) { return operand + (bytes >> 4); }

// Comes before products whose registers other instructions have written.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of products that are waited for together.
__device__ inline void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most kGroups of the latest groups run.
template <int kGroups>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

// Keeps the compiler from moving uses of registers that products read or write to before the wait.
template <int kCount>
__device__ inline void hold(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kCount>
__device__ inline void hold(uint32_t (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

// Sums lie as wgmma leaves them: of thread t, warp w, d[4 j + 2 h + i] is row
// 16 w + t / 4 % 8 + 8 h, column 8 j + 2 (t % 4) + i.

#define MISTRAL_EXT_NAMES_32                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MISTRAL_EXT_NAMES_64                                                         \
  MISTRAL_EXT_NAMES_32                                                               \
  ", "                                                                               \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define MISTRAL_EXT_SUMS_8(d, i)                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define MISTRAL_EXT_SUMS_32(d, i)                                                        \
  MISTRAL_EXT_SUMS_8(d, i), MISTRAL_EXT_SUMS_8(d, i + 8), MISTRAL_EXT_SUMS_8(d, i + 16), \
      MISTRAL_EXT_SUMS_8(d, i + 24)
#define MISTRAL_EXT_SUMS_64(d) MISTRAL_EXT_SUMS_32(d, 0), MISTRAL_EXT_SUMS_32(d, 32)

// Products of 64 x 16 by 16 x 128 elements, both in shared memory with the summed index along
// their rows. adds: 0 puts the product in place of what is in d.
#define MISTRAL_EXT_PRODUCT(T, TYPE)                                                           \
  __device__ inline void product(T, float (&d)[64], uint64_t a, uint64_t b, int adds) {        \
    asm volatile(                                                                              \
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n"                                     \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" MISTRAL_EXT_NAMES_64 \
        "}, %64, %65, adds, 1, 1, 0, 0;\n}"                                                    \
        : MISTRAL_EXT_SUMS_64(d)                                                               \
        : "l"(a), "l"(b), "r"(adds));                                                          \
  }
MISTRAL_EXT_PRODUCT(bfloat16, "bf16")
MISTRAL_EXT_PRODUCT(float16, "f16")

// d += a b with a [64, 16] in registers, b [16, 128 or 64] in shared memory with the summed index
// across its rows. a lies as two neighbouring columns j of sums do, rounded and packed.
#define MISTRAL_EXT_ADD_PRODUCT(T, TYPE)                                                 \
  __device__ inline void add_product(T, float (&d)[64], const uint32_t* a, uint64_t b) { \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE            \
                 " {" MISTRAL_EXT_NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"   \
                 : MISTRAL_EXT_SUMS_64(d)                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                  \
  }                                                                                      \
  __device__ inline void add_product(T, float (&d)[32], const uint32_t* a, uint64_t b) { \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE             \
                 " {" MISTRAL_EXT_NAMES_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"   \
                 : MISTRAL_EXT_SUMS_32(d, 0)                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                  \
  }
MISTRAL_EXT_ADD_PRODUCT(bfloat16, "bf16")
MISTRAL_EXT_ADD_PRODUCT(float16, "f16")

#undef MISTRAL_EXT_PRODUCT
#undef MISTRAL_EXT_ADD_PRODUCT
#undef MISTRAL_EXT_SUMS_64
#undef MISTRAL_EXT_SUMS_32
#undef MISTRAL_EXT_SUMS_8
#undef MISTRAL_EXT_NAMES_64
#undef MISTRAL_EXT_NAMES_32

// Two sums rounded to T, the first in the lower half.
template <typename T>
__device__ uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<bfloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}
template <>
__device__ inline uint32_t pack<float16>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

#endif

}  // namespace mistral_ext::kernels::cuda
