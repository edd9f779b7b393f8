#pragma once

// The product that every part of attention is made of: a few rows of A, broadcast one element at a
// time, times rows of B, a few vectors wide, accumulated in registers.

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

// Rows and vectors of a full tile: its sums, a row of B and one element of A fill the registers.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = kVectorBytes == 64 ? 4 : 2;

// What a tile's sums begin with.
enum class Start { kZero, kKeep, kScale };

// How one step multiplies. kWidth elements of A and of each column of B are consumed a step.
template <typename T>
struct FloatStep {  // A in fp32, B in T
  using A = float;
  using B = T;
  using Spread = vfloat;
  static constexpr int kWidth = 1;
  static Spread spread(const float* a) { return broadcast(*a); }
  static vfloat load_b(const T* b) { return load(b); }
  static vfloat add_product(vfloat sum, Spread a, vfloat b) { return sum + a * b; }
};

#if defined(__AVX512BF16__)
// A row-major in bf16, B in pairs: [steps][columns][2]. Products are summed in fp32.
struct PairStep {
  using A = bfloat16;
  using B = bfloat16;
  using Spread = __m512i;
  static constexpr int kWidth = 2;
  static Spread spread(const bfloat16* a) {
    int32_t pair;
    std::memcpy(&pair, a, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  static __m512i load_b(const bfloat16* b) { return _mm512_loadu_si512(b); }
  static vfloat add_product(vfloat sum, Spread a, __m512i b) {
    return (vfloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

// c[r][v] = start + sum over steps k of a[r * a_row + k * a_step] * b[k * b_step + v], for R rows
// and V vectors of columns. keep[r] is what Start::kScale multiplies c's row by first.
template <typename Step, int R, int V, Start kStart>
inline void multiply_tile(const typename Step::A* a,
                          int64_t a_row,
                          int64_t a_step,
                          const typename Step::B* b,
                          int64_t b_step,
                          int64_t steps,
                          float* c,
                          int64_t c_row,
                          const float* keep) {
  vfloat sums[R][V];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      if constexpr (kStart == Start::kZero) {
        sums[r][v] = vfloat{};
      } else {
        sums[r][v] = load(c + r * c_row + v * kLanes);
        if constexpr (kStart == Start::kScale) sums[r][v] *= broadcast(keep[r]);
      }
    }
  }
  for (int64_t k = 0; k < steps; ++k) {
    decltype(Step::load_b(b)) columns[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) columns[v] = Step::load_b(b + v * kLanes * Step::kWidth);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const auto element = Step::spread(a + r * a_row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        sums[r][v] = Step::add_product(sums[r][v], element, columns[v]);
      }
    }
    a += a_step;
    b += b_step;
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * c_row + v * kLanes, sums[r][v]);
  }
}

// The same for any number of vectors of columns.
template <typename Step, int R, Start kStart>
inline void multiply_rows(const typename Step::A* a,
                          int64_t a_row,
                          int64_t a_step,
                          const typename Step::B* b,
                          int64_t b_step,
                          int64_t steps,
                          float* c,
                          int64_t c_row,
                          int64_t vectors,
                          const float* keep = nullptr) {
  while (vectors > 0) {
    const int64_t wide = vectors < kTileVectors ? vectors : kTileVectors;
    switch (wide) {
      case 4:
        if constexpr (kTileVectors >= 4) {
          multiply_tile<Step, R, 4, kStart>(a, a_row, a_step, b, b_step, steps, c, c_row, keep);
        }
        break;
      case 3:
        if constexpr (kTileVectors >= 3) {
          multiply_tile<Step, R, 3, kStart>(a, a_row, a_step, b, b_step, steps, c, c_row, keep);
        }
        break;
      case 2:
        multiply_tile<Step, R, 2, kStart>(a, a_row, a_step, b, b_step, steps, c, c_row, keep);
        break;
      default:
        multiply_tile<Step, R, 1, kStart>(a, a_row, a_step, b, b_step, steps, c, c_row, keep);
    }
    b += wide * kLanes * Step::kWidth;
    c += wide * kLanes;
    vectors -= wide;
  }
}

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
