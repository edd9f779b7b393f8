#pragma once

// Blocks of keys and values copied into the layouts that attention_tile.h multiplies by.

#include <utility>

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

// One of the log2(kLanes) exchanges of a transposition: the blocks of kSpan x kSpan off the
// diagonal of the rows a and b, kSpan apart, change places (Eklundh 1972).
template <int kSpan, int... kLane>
inline void exchange(vuint& a, vuint& b, std::integer_sequence<int, kLane...>) {
  const vuint upper =
      __builtin_shufflevector(a, b, ((kLane & kSpan) ? kLanes + (kLane ^ kSpan) : kLane)...);
  const vuint lower =
      __builtin_shufflevector(a, b, ((kLane & kSpan) ? kLanes + kLane : (kLane ^ kSpan))...);
  a = upper;
  b = lower;
}

template <int kSpan>
inline void exchange_all(vuint* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kSpan) == 0) {
      exchange<kSpan>(rows[i], rows[i + kSpan], std::make_integer_sequence<int, kLanes>());
    }
  }
}

inline void transpose(vuint* rows) {
  exchange_all<1>(rows);
  exchange_all<2>(rows);
  if constexpr (kLanes >= 8) exchange_all<4>(rows);
  if constexpr (kLanes >= 16) exchange_all<8>(rows);
}

// Elements of a key as the tile consumes them: one widened to fp32 ...
template <typename T>
struct Singles {
  static constexpr int kWidth = 1;
  static vuint full(const T* p) { return (vuint)load(p); }
  static vuint partial(const T* p, int64_t n) { return (vuint)load_partial(p, n); }
};

// ... or two of 16 bits side by side; a missing last one is 0.
struct Pairs {
  static constexpr int kWidth = 2;
  static vuint full(const bfloat16* p) {
    vuint v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static vuint partial(const bfloat16* p, int64_t n) {
    bfloat16 elements[2 * kLanes] = {};
    for (int64_t i = 0; i < n; ++i) elements[i] = p[i];
    return full(elements);
  }
};

// packed[c][j] = element c (a single or a pair) of row j, for rows [0, n), n <= kAttentionKeys, of
// `columns` elements of T; rows from n to the next multiple of kLanes are 0.
template <typename Elements, typename T>
inline void pack_transposed(
    const T* rows, int64_t stride, int64_t n, int64_t columns, uint32_t* packed) {
  constexpr int64_t kStep = kLanes * Elements::kWidth;
  const int64_t packed_columns = (columns + Elements::kWidth - 1) / Elements::kWidth;
  for (int64_t j = 0; j < n; j += kLanes) {
    for (int64_t c = 0; c * Elements::kWidth < columns; c += kLanes) {
      const int64_t left = columns - c * Elements::kWidth;
      vuint block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const T* from = rows + (j + i) * stride + c * Elements::kWidth;
        block[i] = j + i >= n      ? vuint{}
                   : left >= kStep ? Elements::full(from)
                                   : Elements::partial(from, left);
      }
      transpose(block);
      uint32_t* to = packed + c * kAttentionKeys + j;
      const int64_t wanted = packed_columns - c;
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (i < wanted) std::memcpy(to + i * kAttentionKeys, &block[i], sizeof block[i]);
      }
    }
  }
}

// to[j] = row j in fp32, `padded` elements long with zeros at the end, for rows [0, n).
template <typename T>
inline void pack_rows(
    const T* rows, int64_t stride, int64_t n, int64_t columns, float* to, int64_t padded) {
  for (int64_t j = 0; j < n; ++j) {
    const T* from = rows + j * stride;
    float* row = to + j * padded;
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) store(row + c, load(from + c));
    if (c < columns) {
      store(row + c, load_partial(from + c, columns - c));
      c += kLanes;
    }
    for (; c < padded; c += kLanes) store(row + c, vfloat{});
  }
}

// The same in bf16.
inline void pack_rows(const bfloat16* rows,
                      int64_t stride,
                      int64_t n,
                      int64_t columns,
                      bfloat16* to,
                      int64_t padded) {
  for (int64_t j = 0; j < n; ++j) {
    std::memcpy(to + j * padded, rows + j * stride, columns * sizeof(bfloat16));
    for (int64_t c = columns; c < padded; ++c) to[j * padded + c] = {0};
  }
}

// to[j / 2][c][j % 2] = element c of row j: pairs of keys for the product with bf16 weights. Rows
// [0, n), and one of zeros after an odd n.
inline void pack_row_pairs(const bfloat16* rows,
                           int64_t stride,
                           int64_t n,
                           int64_t columns,
                           bfloat16* to,
                           int64_t padded) {
  const auto half = [&](int64_t j, int64_t c) {
    if (j >= n || c >= columns) return vuint{};
    const bfloat16* from = rows + j * stride + c;
    // A bf16 is the upper half of the fp32 of the same value.
    return columns - c >= kLanes ? (vuint)load(from) : (vuint)load_partial(from, columns - c);
  };
  for (int64_t j = 0; j < n; j += 2) {
    for (int64_t c = 0; c < padded; c += kLanes) {
      const vuint pairs = (half(j, c) >> 16) | half(j + 1, c);
      std::memcpy(to + j * padded + 2 * c, &pairs, sizeof pairs);
    }
  }
}

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
