#pragma once

// The lanes of many vectors summed together, for kernels that end in a dot product a lane. Include
// it only from a file compiled a level at a time.

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

// The lanes of a that have no bit kStride in their number, each plus the lane kStride after it;
// then the same of b.
template <int kStride>
vfloat fold(vfloat a, vfloat b);

#if defined(__AVX512F__)

template <>
inline vfloat fold<8>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(
             a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

template <>
inline vfloat fold<4>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

template <>
inline vfloat fold<2>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
         __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}

template <>
inline vfloat fold<1>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

#elif defined(__AVX2__)

template <>
inline vfloat fold<4>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}

template <>
inline vfloat fold<2>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13) +
         __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15);
}

template <>
inline vfloat fold<1>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}

#else

template <>
inline vfloat fold<2>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
}

template <>
inline vfloat fold<1>(vfloat a, vfloat b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}

#endif

// Folds count vectors into count / 2, and those again, down to one.
template <int kStride>
inline vfloat fold_all(const vfloat* v) {
  vfloat half[kStride];
  for (int i = 0; i < kStride; ++i) half[i] = fold<kStride>(v[2 * i], v[2 * i + 1]);
  if constexpr (kStride == 1) {
    return half[0];
  } else {
    return fold_all<kStride / 2>(half);
  }
}

// Lane i of the result is the sum of the lanes of v[i], for the kLanes vectors of v. A lane's sum
// is taken in one order whatever the other vectors hold.
inline vfloat sum_each(const vfloat (&v)[kLanes]) { return fold_all<kLanes / 2>(v); }

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
