#pragma once

// What the attention of a decode step computes with: pieces of rows, softmax so far, rotation.

#include <cmath>

#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {

inline constexpr int kRowElements = 8;  // of a row that one thread holds
inline constexpr int kKeysAhead = 2;    // keys a thread looks at together
inline constexpr float kLog2e = 1.4426950408889634f;

template <typename T>
using RowPiece = Vector<T, kRowElements>;

template <typename T>
__device__ inline RowPiece<T> load_piece(const T* from) {
  return *reinterpret_cast<const RowPiece<T>*>(from);
}

// What another kernel of the step has written.
template <typename T>
__device__ RowPiece<T> load_projected(const T* from) {
  const uint4 bits = __ldcg(reinterpret_cast<const uint4*>(from));
  return *reinterpret_cast<const RowPiece<T>*>(&bits);
}

__device__ inline float rescale(float from, float to) {
  return from == -INFINITY ? 0.0f : exp2f(from - to);
}

// Softmax over some keys, so far, for one query head: the greatest score (base 2), the sum of the
// weights relative to it, and this thread's part of the weighted values.
struct SoftmaxState {
  float greatest = -INFINITY;
  float sum = 0.0f;
  float values[kRowElements] = {};

  __device__ void join(float other_greatest, float other_sum, const float* other_values) {
    const float most = fmaxf(greatest, other_greatest);
    const float mine = rescale(greatest, most);
    const float theirs = rescale(other_greatest, most);
    greatest = most;
    sum = sum * mine + other_sum * theirs;
    for (int j = 0; j < kRowElements; ++j) {
      values[j] = values[j] * mine + other_values[j] * theirs;
    }
  }
};

template <typename T>
struct KeysAhead {
  RowPiece<T> key[kKeysAhead];
  RowPiece<T> value[kKeysAhead];
  bool visible[kKeysAhead];
};

// Adds the keys of `ahead` to the states. kLanes threads hold a row.
template <typename T, int kLanes, int kGroup>
__device__ void attend(const KeysAhead<T>& ahead,
                       const float (&query)[kGroup][kRowElements],
                       uint32_t row_lanes,
                       SoftmaxState (&state)[kGroup]) {
  float score[kGroup][kKeysAhead];
#pragma unroll
  for (int a = 0; a < kKeysAhead; ++a) {
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < kRowElements; ++j) sum += query[g][j] * widen(ahead.key[a].at[j]);
#pragma unroll
      for (int offset = kLanes / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(row_lanes, sum, offset);
      }
      score[g][a] = ahead.visible[a] ? sum : -INFINITY;
    }
  }
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    float most = state[g].greatest;
#pragma unroll
    for (int a = 0; a < kKeysAhead; ++a) most = fmaxf(most, score[g][a]);
    const float mine = rescale(state[g].greatest, most);
    state[g].greatest = most;
    state[g].sum *= mine;
#pragma unroll
    for (int j = 0; j < kRowElements; ++j) state[g].values[j] *= mine;
#pragma unroll
    for (int a = 0; a < kKeysAhead; ++a) {
      score[g][a] = ahead.visible[a] ? exp2f(score[g][a] - most) : 0.0f;  // now its weight
      state[g].sum += score[g][a];
    }
  }
#pragma unroll
  for (int a = 0; a < kKeysAhead; ++a) {
#pragma unroll
    for (int j = 0; j < kRowElements; ++j) {
      const float value = widen(ahead.value[a].at[j]);
#pragma unroll
      for (int g = 0; g < kGroup; ++g) state[g].values[j] += score[g][a] * value;
    }
  }
}

// This thread's elements of a head, rotated by its position.
template <typename T>
struct Rotation {
  float cosines[kRowElements];
  float sines[kRowElements];
  int64_t column;
  int64_t partner;  // column it is rotated with
  bool is_low;

  __device__ Rotation(const DecodeStepAttention<T>& args, int64_t position, int64_t at)
      : column(at) {
    const int half = args.head_dim / 2;
    is_low = column < half;
    partner = is_low ? column + half : column - half;
    const bool in_table = position >= 0 && position < args.table;
    const float* row = args.cos_sin + (in_table ? position * args.head_dim : 0);
    const int64_t pair = is_low ? column : partner;
    for (int j = 0; j < kRowElements; ++j) {
      cosines[j] = in_table ? row[pair + j] : NAN;
      sines[j] = in_table ? row[half + pair + j] : NAN;
    }
  }

  struct Loaded {
    RowPiece<T> own;
    RowPiece<T> other;
  };

  __device__ Loaded load_head(const T* head) const {
    return {load_projected(head + column), load_projected(head + partner)};
  }

  __device__ RowPiece<T> operator()(const Loaded& loaded) const {
    RowPiece<T> rotated;
    for (int j = 0; j < kRowElements; ++j) {
      const float x = widen(loaded.own.at[j]) * cosines[j];
      const float y = widen(loaded.other.at[j]) * sines[j];
      rotated.at[j] = narrow<T>(is_low ? x - y : x + y);
    }
    return rotated;
  }
};

}  // namespace mistral_ext::kernels::cuda
