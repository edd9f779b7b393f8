#pragma once

// The online softmax of a row, in powers of two: scores are multiplied by log2 e once, and e^x
// becomes 2^x.

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.69314718055994531f;
inline constexpr float kNegativeInfinity = -__builtin_inff();

// 2^x for x <= 0, to about 1 ulp; 0 below 2^-126.5; NaN stays NaN.
// 2^n comes from the bits of x + 1.5 * 2^23, whose low ones are n = round(x); the polynomial is the
// degree-6 minimax of 2^f on [-1/2, 1/2] with p(0) = 1.
inline vfloat exp2_of_negative(vfloat x) {
  const vfloat low = broadcast(-127.0f);
  const vfloat clamped = low > x ? low : x;
  const vfloat shifted = clamped + 12582912.0f;
  const vfloat f = clamped - (shifted - 12582912.0f);
  vfloat p = broadcast(0.00015353361959569156f);
  p = p * f + 0.0013398873852565885f;
  p = p * f + 0.00961843691766262f;
  p = p * f + 0.055503323674201965f;
  p = p * f + 0.24022647738456726f;
  p = p * f + 0.6931471824645996f;
  p = p * f + 1.0f;
  return p * (vfloat)(((vint)shifted + 127) << 23);  // -127 gives the bits of 0
}

// Room for a number a row, rounded up to whole vectors.
template <int R>
inline constexpr int kRowsPadded = (R + kLanes - 1) / kLanes * kLanes;

inline vfloat larger(vfloat a, vfloat b) { return a > b ? a : b; }

// One row's state between blocks of keys: the largest score (times log2 e) and, lane by lane, the
// total of the weights.
struct SoftmaxRows {
  float* largest;
  float* totals;  // kLanes a row

  void reset(int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      largest[r] = kNegativeInfinity;
      store(totals + r * kLanes, vfloat{});
    }
  }
};

// Takes R rows of `columns` (a multiple of kLanes) raw scores into the state, leaves their weights
// 2^(score - largest) in `weights`, and in keep[r] what the row's output so far must be multiplied
// by (room for kRowsPadded<R>). bias[r], in powers of two, is added to the scaled scores; null:
// none.
template <int R, typename W>
inline void softmax_rows(float* scores,
                         const float* const* bias,
                         int64_t columns,
                         float scale,
                         const SoftmaxRows& state,
                         W* weights,
                         float* keep) {
  float steps[kRowsPadded<R>] = {};
  float shifts[R];
  for (int r = 0; r < R; ++r) {
    float* row = scores + r * kAttentionKeys;
    vfloat largest = broadcast(kNegativeInfinity);
    if (bias != nullptr) {
      for (int64_t j = 0; j < columns; j += kLanes) {
        // Hidden is hidden, though the score be infinite.
        const vfloat hidden = broadcast(kNegativeInfinity);
        const vfloat added = load(bias[r] + j);
        const vfloat score = added == hidden ? hidden : load(row + j) * scale + added;
        store(row + j, score);
        largest = larger(largest, score);
      }
    } else {
      for (int64_t j = 0; j < columns; j += kLanes) {
        const vfloat score = load(row + j) * scale;
        store(row + j, score);
        largest = larger(largest, score);
      }
    }
    const float before = state.largest[r];
    const float row_largest = max(largest);
    const float now = row_largest > before ? row_largest : before;
    state.largest[r] = now;
    shifts[r] = now == kNegativeInfinity ? 0.0f : now;  // nothing visible yet
    steps[r] = before - shifts[r];
  }
  for (int r = 0; r < R; r += kLanes) store(keep + r, exp2_of_negative(load(steps + r)));
  for (int r = 0; r < R; ++r) {
    const float* row = scores + r * kAttentionKeys;
    W* out = weights + r * kAttentionKeys;
    vfloat total = load(state.totals + r * kLanes) * keep[r];
    for (int64_t j = 0; j < columns; j += kLanes) {
      const vfloat weight = exp2_of_negative(load(row + j) - shifts[r]);
      total += weight;
      store(out + j, weight);
    }
    store(state.totals + r * kLanes, total);
  }
}

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
