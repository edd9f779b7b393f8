#pragma once

// Products on the matrix units, and the pairs of elements that their operands are made of.

#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {

// c += A B, 16 x 8 += 16 x 16 times 16 x 8, with sums in fp32.
template <typename T>
__device__ inline void multiply_add(float (&c)[4], const uint4& a, uint32_t b0, uint32_t b1);
template <>
__device__ inline void multiply_add<bfloat16>(float (&c)[4],
                                              const uint4& a,
                                              uint32_t b0,
                                              uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<float16>(float (&c)[4],
                                             const uint4& a,
                                             uint32_t b0,
                                             uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// Products of pairs, rounded once.
template <typename T>
__device__ inline uint32_t multiply_pairs(uint32_t a, uint32_t b);
template <>
__device__ inline uint32_t multiply_pairs<bfloat16>(uint32_t a, uint32_t b) {
  const auto c = __hmul2_rn(reinterpret_cast<const __nv_bfloat162&>(a),
                            reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(c);
}
template <>
__device__ inline uint32_t multiply_pairs<float16>(uint32_t a, uint32_t b) {
  const auto c =
      __hmul2_rn(reinterpret_cast<const __half2&>(a), reinterpret_cast<const __half2&>(b));
  return reinterpret_cast<const uint32_t&>(c);
}

template <typename T>
__device__ inline float2 widen_pair(uint32_t x) {
  return make_float2(widen(T{static_cast<uint16_t>(x)}), widen(T{static_cast<uint16_t>(x >> 16)}));
}
template <>
__device__ inline float2 widen_pair<bfloat16>(uint32_t x) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}

template <typename T>
__device__ inline uint32_t narrow_pair(float2 x);
template <>
__device__ inline uint32_t narrow_pair<bfloat16>(float2 x) {
  const auto c = __float22bfloat162_rn(x);
  return reinterpret_cast<const uint32_t&>(c);
}
template <>
__device__ inline uint32_t narrow_pair<float16>(float2 x) {
  const auto c = __float22half2_rn(x);
  return reinterpret_cast<const uint32_t&>(c);
}

}  // namespace mistral_ext::kernels::cuda
