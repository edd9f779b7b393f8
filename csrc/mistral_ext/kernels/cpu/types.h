#pragma once

#include <cstdint>
#include <cstring>

#include "mistral_ext/kernels/types.h"

namespace mistral_ext::kernels {

// The conversions are always inlined: an out-of-line copy compiled for one instruction-set level
// could otherwise be the one that the linker keeps for all.
#define MISTRAL_EXT_INLINE [[gnu::always_inline]] inline

MISTRAL_EXT_INLINE float to_float(float x) { return x; }
MISTRAL_EXT_INLINE double to_float(double x) { return x; }

MISTRAL_EXT_INLINE float to_float(bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// IEEE binary16: subnormals are scaled by a power of two that fp32 holds exactly.
MISTRAL_EXT_INLINE float to_float(float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fu;
  const uint32_t mantissa = x.bits & 0x3ffu;
  float magnitude;
  if (exponent == 0) {
    magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
  } else {
    const uint32_t bits =
        (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
    std::memcpy(&magnitude, &bits, sizeof magnitude);
  }
  uint32_t bits;
  std::memcpy(&bits, &magnitude, sizeof bits);
  bits |= sign;
  std::memcpy(&magnitude, &bits, sizeof magnitude);
  return magnitude;
}

template <typename T>
T from_float(float x);

template <>
MISTRAL_EXT_INLINE float from_float<float>(float x) {
  return x;
}

// Round to nearest, ties to even; NaN stays NaN.
template <>
MISTRAL_EXT_INLINE bfloat16 from_float<bfloat16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <>
MISTRAL_EXT_INLINE float16 from_float<float16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (bits >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (bits < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded mantissa in the low bits
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, sizeof bits);
    return {static_cast<uint16_t>(sign | (bits - 0x3f000000u))};
  }
  bits += 0xfffu + ((bits >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((bits - 0x38000000u) >> 13))};
}

}  // namespace mistral_ext::kernels
