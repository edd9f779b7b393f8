#pragma once

// Scores of a few rows of queries against keys where they lie: for decoding, where each key is used
// too few times to be worth a copy.

#include <utility>

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

// Halves two vectors of partial sums into one: lanes with the bit kSpan clear belong to a, the
// others to b.
template <int kSpan, int... kLane>
inline vfloat fold(vfloat a, vfloat b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, ((kLane & kSpan) ? kLanes + kLane : kLane)...) +
         __builtin_shufflevector(
             a, b, ((kLane & kSpan) ? kLanes + (kLane ^ kSpan) : (kLane ^ kSpan))...);
}

template <int kSpan>
inline void fold_pairs(vfloat* sums) {
#pragma GCC unroll 8
  for (int i = 0; i < kLanes / (2 * kSpan); ++i) {
    sums[i] = fold<kSpan>(sums[2 * i], sums[2 * i + 1], std::make_integer_sequence<int, kLanes>());
  }
}

// Lane i of the result is the sum of sums[i]'s lanes.
inline vfloat sum_each(vfloat* sums) {
  fold_pairs<1>(sums);
  fold_pairs<2>(sums);
  if constexpr (kLanes >= 8) fold_pairs<4>(sums);
  if constexpr (kLanes >= 16) fold_pairs<8>(sums);
  return sums[0];
}

// scores[r][j] = q[r] . keys[j] for R rows of q (padded with zeros to q_row elements) and keys
// [0, n); the scores of keys from n to the next multiple of kLanes are some key's.
template <int R, typename T>
inline void dot_rows(const float* q,
                     int64_t q_row,
                     const T* keys,
                     int64_t key_stride,
                     int64_t head_dim,
                     int64_t n,
                     float* scores) {
  constexpr int kKeys = kLanes / R;  // at a time: one sum a lane
  const int64_t end = (n + kLanes - 1) / kLanes * kLanes;
  for (int64_t j = 0; j < end; j += kKeys) {
    vfloat sums[kLanes] = {};
    const T* rows[kKeys];
#pragma GCC unroll 16
    for (int i = 0; i < kKeys; ++i) rows[i] = keys + (j + i < n ? j + i : n - 1) * key_stride;
    for (int64_t c = 0; c < head_dim; c += kLanes) {
      const bool whole = c + kLanes <= head_dim;
      vfloat queries[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) queries[r] = load(q + r * q_row + c);
#pragma GCC unroll 16
      for (int i = 0; i < kKeys; ++i) {
        const vfloat key = whole ? load(rows[i] + c) : load_partial(rows[i] + c, head_dim - c);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r * kKeys + i] += queries[r] * key;
      }
    }
    const vfloat dots = sum_each(sums);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      std::memcpy(scores + r * kAttentionKeys + j,
                  reinterpret_cast<const char*>(&dots) + r * kKeys * sizeof(float),
                  kKeys * sizeof(float));
    }
  }
}

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
