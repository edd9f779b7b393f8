#pragma once

// A vector of floats as wide as the level's registers, written with the compiler's vector
// extensions so that one source serves every level. Include it only from a file compiled a level at
// a time: everything lives in the level's namespace, so no two levels share a symbol.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

inline constexpr int kLanes = kVectorBytes / 4;

typedef float vfloat __attribute__((vector_size(kVectorBytes)));
typedef int32_t vint __attribute__((vector_size(kVectorBytes)));
typedef uint32_t vuint __attribute__((vector_size(kVectorBytes)));
typedef uint16_t vhalfbits __attribute__((vector_size(kVectorBytes / 2)));

inline vfloat broadcast(float x) { return x - vfloat{}; }

inline vfloat load(const float* p) {
  vfloat v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, vfloat v) { std::memcpy(p, &v, sizeof v); }

inline vfloat load(const bfloat16* p) {
  vhalfbits half;
  std::memcpy(&half, p, sizeof half);
  return (vfloat)(__builtin_convertvector(half, vuint) << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
inline void store(bfloat16* p, vfloat v) {
#if defined(__AVX512BF16__)
  const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
  std::memcpy(p, &half, sizeof half);
#else
  const vuint bits = (vuint)v;
  const vuint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vuint quiet = (bits >> 16) | 0x40u;
  const vuint is_nan = (vuint)(v != v);
  const vhalfbits half = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), vhalfbits);
  std::memcpy(p, &half, sizeof half);
#endif
}

inline vfloat load(const float16* p) {
#if defined(__AVX512F__)
  return (vfloat)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (vfloat)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  vfloat v;
  for (int i = 0; i < kLanes; ++i) v[i] = to_float(p[i]);
  return v;
#endif
}

inline void store(float16* p, vfloat v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = from_float<float16>(v[i]);
#endif
}

// v as T would hold it: rounded to T and widened again.
template <typename T>
inline vfloat round_to(vfloat v) {
  T rounded[kLanes];
  store(rounded, v);
  return load(rounded);
}

template <>
inline vfloat round_to<float>(vfloat v) {
  return v;
}

#if defined(__AVX512F__)

inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

// The first n < kLanes elements; the other lanes are `fill`. Nothing past p + n is read.
inline vfloat load_partial(const float* p, int64_t n, float fill = 0.0f) {
  return (vfloat)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(n), p);
}

inline vfloat load_partial(const bfloat16* p, int64_t n, float fill = 0.0f) {
  const __m512i half = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), p));
  return (vfloat)_mm512_mask_slli_epi32(
      _mm512_castps_si512(_mm512_set1_ps(fill)), first_lanes(n), half, 16);
}

inline vfloat load_partial(const float16* p, int64_t n, float fill = 0.0f) {
  const __m256i half = _mm256_maskz_loadu_epi16(first_lanes(n), p);
  return (vfloat)_mm512_mask_cvtph_ps(_mm512_set1_ps(fill), first_lanes(n), half);
}

// Writes the first n < kLanes lanes.
inline void store_partial(float* p, vfloat v, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v);
}

template <typename T>
inline void store_partial(T* p, vfloat v, int64_t n) {
  T rounded[kLanes];
  store(rounded, v);
  _mm256_mask_storeu_epi16(
      p, first_lanes(n), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rounded)));
}

#else

// The first n < kLanes elements; the other lanes are `fill`. Nothing past p + n is read.
template <typename T>
inline vfloat load_partial(const T* p, int64_t n, float fill = 0.0f) {
  vfloat v = broadcast(fill);
  for (int64_t i = 0; i < n; ++i) v[i] = to_float(p[i]);
  return v;
}

// Writes the first n < kLanes lanes.
template <typename T>
inline void store_partial(T* p, vfloat v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = from_float<T>(v[i]);
}

#endif

// A vector's worth of elements, as a count known when compiling.
struct Whole {};

template <typename T>
inline vfloat load(const T* p, Whole) {
  return load(p);
}

template <typename T>
inline vfloat load(const T* p, int64_t n) {
  return load_partial(p, n);
}

template <typename T>
inline void store(T* p, vfloat v, Whole) {
  store(p, v);
}

template <typename T>
inline void store(T* p, vfloat v, int64_t n) {
  store_partial(p, v, n);
}

// Calls body(i, count) for each vector of [0, n): count is Whole, and a number for a shorter last.
template <typename Body>
inline void for_each_vector(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Whole{});
  if (i < n) body(i, n - i);
}

inline float sum(vfloat v);

// The sum of term(i, count) over the vectors of [0, n). Four running sums hide the latency of an
// addition and keep its rounding errors small.
template <typename Term>
inline float sum_over_vectors(int64_t n, Term term) {
  vfloat a = {};
  vfloat b = {};
  vfloat c = {};
  vfloat d = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a += term(i, Whole{});
    b += term(i + kLanes, Whole{});
    c += term(i + 2 * kLanes, Whole{});
    d += term(i + 3 * kLanes, Whole{});
  }
  for (; i + kLanes <= n; i += kLanes) a += term(i, Whole{});
  if (i < n) b += term(i, n - i);
  return sum((a + b) + (c + d));
}

inline vfloat select(vint mask, vfloat yes, vfloat no) {
  return (vfloat)(((vint)yes & mask) | ((vint)no & ~mask));
}

inline vfloat max(vfloat a, vfloat b) { return select(a > b, a, b); }

inline float sum(vfloat v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float total = 0.0f;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
#endif
}

inline float max(vfloat v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float largest = v[0];
  for (int i = 1; i < kLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
#endif
}

// e^x to about 1 ulp over the normal range; 0 below -87.3, +inf above 88.7; NaN stays NaN.
// Cody-Waite reduction x = n ln2 + r, |r| <= ln2/2, and the degree-6 Taylor-like polynomial of
// Cephes' expf (S. Moshier, Cephes Mathematical Library).
inline vfloat exp(vfloat x) {
  const vfloat low = broadcast(-87.33654f);
  const vfloat high = broadcast(88.72283f);
  const vint underflow = x < low;
  const vint overflow = x > high;
  const vint is_nan = x != x;
  const vfloat clamped = select(underflow, low, select(overflow, high, x));
  const vfloat magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vfloat shifted = clamped * 1.44269504088896341f + magic;
  const vfloat n = shifted - magic;
  vfloat r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vfloat p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two steps, so that n = 128 and n = -126 do not leave the exponent's range.
  const vint exponent = __builtin_convertvector(n, vint);
  const vint half = exponent >> 1;
  const vfloat scale_a = (vfloat)((half + 127) << 23);
  const vfloat scale_b = (vfloat)((exponent - half + 127) << 23);
  vfloat y = p * scale_a * scale_b;
  y = select(underflow, vfloat{}, y);
  y = select(overflow, broadcast(__builtin_inff()), y);
  return select(is_nan, x, y);
}

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
