#pragma once

// Where a unit's rows and keys lie.

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/attention_pack.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

// Arrays cut from a thread's scratch one after another, each beginning at a cache line.
class Scratch {
 public:
  explicit Scratch(float* memory) : next_(memory) {}
  float* take(int64_t floats) {
    float* const array = next_;
    next_ += (floats + 15) / 16 * 16;
    return array;
  }

 private:
  float* next_;
};

// Key or value `token` of the unit's key head.
template <typename T>
inline const T* key_row(const AttentionTensor& x, const AttentionUnit& unit, int64_t token) {
  return static_cast<const T*>(x.data) + unit.batch * x.batch_stride +
         unit.kv_head * x.head_stride + token * x.token_stride;
}

// Copies the unit's rows of x, a tensor of query's shape, to `to`, with zeros after the last row up
// to `padded_rows`.
template <typename T, typename To>
inline void gather_rows(const AttentionTensor& x,
                        const AttentionArgs& args,
                        const AttentionUnit& unit,
                        int64_t padded_rows,
                        To* to,
                        int64_t padded) {
  const int64_t group = args.group();
  const int64_t queries = unit.query_end - unit.query_begin;
  for (int64_t i = 0; i < queries; ++i) {
    const T* from = static_cast<const T*>(x.data) + unit.batch * x.batch_stride +
                    (unit.query_begin + i) * x.token_stride + unit.kv_head * group * x.head_stride;
    pack_rows(from, x.head_stride, group, args.head_dim, to + i * group * padded, padded);
  }
  std::memset(
      to + queries * group * padded, 0, (padded_rows - queries * group) * padded * sizeof(To));
}

// The index of a unit's row in an array [batch, heads, query_len].
inline int64_t row_index(const AttentionArgs& args, const AttentionUnit& unit, int64_t row) {
  const int64_t group = args.group();
  const int64_t head = unit.kv_head * group + row % group;
  return (unit.batch * args.heads + head) * args.query_len + unit.query_begin + row / group;
}

// Writes the first `columns` elements of a row, each times `factor`.
template <typename T>
inline void store_row(const float* from, float factor, int64_t columns, T* to) {
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) store(to + c, load(from + c) * factor);
  if (c < columns) store_partial(to + c, load(from + c) * factor, columns - c);
}

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
