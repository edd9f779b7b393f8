#pragma once

// What attention of a decode step computes with on the matrix units.

#include <cmath>

#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/matrix_units.cuh"
#include "mistral_ext/kernels/cuda/step_softmax.cuh"

namespace mistral_ext::kernels::cuda {

inline constexpr int kTileKeys = 16;  // what a warp looks at together

// A tile's place: keys from `first` on, as far as they are before `end`, not at `slot`, and not
// hidden: those before the slot from `shown` on are seen, those behind it from `shown_behind` on.
struct Place {
  int first;
  int end;
  int slot;
  int shown;
  int shown_behind;

  __device__ bool has(int key) const {
    return key < end && key != slot && key >= (key < slot ? shown : shown_behind);
  }
  __device__ bool is_empty() const { return first >= end; }
};

// What lane (g, t) = 4g + t of a warp holds of a tile of keys and values. Scores are A B with rows
// of the query, one a head, as A: of rows g and 8 + g of the keys it has the pieces 4 j + t, as B.
// The output is A B with values as A, columns first: of the values of keys 2t, 2t + 1, 2t + 8 and
// 2t + 9 it has the pieces g + 8 c; their elements e are rows g and g + 8 of A. B then are the
// weights, which lie as the scores came.
template <typename T, int kDims>
class Tile {
 public:
  static constexpr int kKeyPieces = kDims / 32;
  static constexpr int kValuePieces = kDims / 64;

  __device__ Tile(int lane, int head_dim) : g_(lane / 4), t_(lane % 4), head_dim_(head_dim) {}

  // 0 where there is none.
  __device__ void load_keys(const T* keys, const Place& place) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = place.first + 8 * n + g_;
      const T* row = keys + static_cast<int64_t>(key) * head_dim_;
#pragma unroll
      for (int j = 0; j < kKeyPieces; ++j) {
        const int at = 32 * j + 8 * t_;
        key_[n][j] = place.has(key) && at < head_dim_ ? load(row + at) : uint4{};
      }
    }
  }
  __device__ void load_values(const T* values, const Place& place) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = place.first + 2 * t_ + i % 2 + i / 2 * 8;
      const T* row = values + static_cast<int64_t>(key) * head_dim_;
#pragma unroll
      for (int c = 0; c < kValuePieces; ++c) {
        const int at = 8 * (g_ + 8 * c);
        value_[i][c] = place.has(key) && at < head_dim_ ? load(row + at) : uint4{};
      }
    }
  }

  // score[n][i]: of head g with key 8n + 2t + i. query: shared memory, rows of kDims.
  __device__ void multiply_keys(const uint4 (&query)[kKeyPieces], float (&score)[2][2]) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      float c[4] = {};
#pragma unroll
      for (int j = 0; j < kKeyPieces; ++j) {
        const uint4& q = query[j];
        const uint4& k = key_[n][j];
        multiply_add<T>(c, {q.x, 0, q.y, 0}, k.x, k.y);
        multiply_add<T>(c, {q.z, 0, q.w, 0}, k.z, k.w);
      }
      score[n][0] = c[0];
      score[n][1] = c[1];
    }
  }

  // output[c][e]: columns 8 (g + 8 c) + 2 e of heads 2t and 2t + 1, then the next column of both.
  __device__ void add_values(const float (&weight)[2][2],
                             float (&output)[kValuePieces][4][4]) const {
    const uint32_t low = narrow_pair<T>(make_float2(weight[0][0], weight[0][1]));
    const uint32_t high = narrow_pair<T>(make_float2(weight[1][0], weight[1][1]));
#pragma unroll
    for (int c = 0; c < kValuePieces; ++c) {
      const uint4& v0 = value_[0][c];
      const uint4& v1 = value_[1][c];
      const uint4& v2 = value_[2][c];
      const uint4& v3 = value_[3][c];
      add_columns(output[c][0], v0.x, v1.x, v2.x, v3.x, low, high);
      add_columns(output[c][1], v0.y, v1.y, v2.y, v3.y, low, high);
      add_columns(output[c][2], v0.z, v1.z, v2.z, v3.z, low, high);
      add_columns(output[c][3], v0.w, v1.w, v2.w, v3.w, low, high);
    }
  }

 private:
  __device__ static uint4 load(const T* from) { return *reinterpret_cast<const uint4*>(from); }

  __device__ static void add_columns(float (&c)[4],
                                     uint32_t v0,
                                     uint32_t v1,
                                     uint32_t v2,
                                     uint32_t v3,
                                     uint32_t low,
                                     uint32_t high) {
    constexpr uint32_t kFirsts = 0x5410;
    constexpr uint32_t kSeconds = 0x7632;
    const uint4 a = {__byte_perm(v0, v1, kFirsts),
                     __byte_perm(v0, v1, kSeconds),
                     __byte_perm(v2, v3, kFirsts),
                     __byte_perm(v2, v3, kSeconds)};
    multiply_add<T>(c, a, low, high);
  }

  int g_;
  int t_;
  int head_dim_;
  uint4 key_[2][kKeyPieces];
  uint4 value_[4][kValuePieces];
};

// The rotation of the first half of a head with the second: thread i has 8 elements of each.
template <typename T>
struct HalfRotation {
  alignas(16) float cosines[kRowElements];
  alignas(16) float sines[kRowElements];

  __device__ static float4 load(bool is_there, const float* from) {
    return is_there ? *reinterpret_cast<const float4*>(from) : make_float4(NAN, NAN, NAN, NAN);
  }

  __device__ HalfRotation(const DecodeStepAttention<T>& args, int64_t position, int column) {
    const bool in_table = position >= 0 && position < args.table;
    const float* row = args.cos_sin + (in_table ? position * args.head_dim : 0) + column;
    for (int j = 0; j < kRowElements; j += 4) {
      *reinterpret_cast<float4*>(cosines + j) = load(in_table, row + j);
      *reinterpret_cast<float4*>(sines + j) = load(in_table, row + args.head_dim / 2 + j);
    }
  }

  __device__ void operator()(RowPiece<T>& low, RowPiece<T>& high) const {
    for (int j = 0; j < kRowElements; ++j) {
      const float x = widen(low.at[j]);
      const float y = widen(high.at[j]);
      low.at[j] = narrow<T>(x * cosines[j] - y * sines[j]);
      high.at[j] = narrow<T>(y * cosines[j] + x * sines[j]);
    }
  }
};

}  // namespace mistral_ext::kernels::cuda
