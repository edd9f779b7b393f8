#include "mistral_ext/kernels/cpu/linear.h"

#include "mistral_ext/kernels/cpu/simd.h"
#include "mistral_ext/kernels/cpu/sum_each.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

// How a level multiplies weights of type T, kStep elements at a time: what of x is packed for one
// step, what is loaded of the weight, and how a product is added. This one widens to float lanes.
template <typename T>
struct Product {
  static constexpr int kStep = kLanes;
  using Packed = float;
  using X = vfloat;
  using Weight = vfloat;

  static void pack(const T* x, int64_t n, Packed* packed) {
    store(packed, n == kStep ? load(x) : load_partial(x, n));
  }
  static X load_x(const Packed* packed) { return load(packed); }
  static Weight load_weight(const T* weight) { return load(weight); }
  static Weight load_weight(const T* weight, int64_t n) { return load_partial(weight, n); }
  static vfloat add(vfloat sum, Weight w, X x) { return sum + w * x; }
};

#if defined(__AVX512BF16__)

// Pairs of exact bf16 products, added in float.
template <>
struct Product<bfloat16> {
  static constexpr int kStep = 2 * kLanes;
  using Packed = bfloat16;
  using X = __m512bh;
  using Weight = __m512bh;

  static void pack(const bfloat16* x, int64_t n, Packed* packed) {
    for (int64_t i = 0; i < kStep; ++i) packed[i] = i < n ? x[i] : bfloat16{0};
  }
  static X load_x(const Packed* packed) { return (__m512bh)_mm512_loadu_si512(packed); }
  static Weight load_weight(const bfloat16* weight) { return (__m512bh)_mm512_loadu_si512(weight); }
  static Weight load_weight(const bfloat16* weight, int64_t n) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << n) - 1);
    return (__m512bh)_mm512_maskz_loadu_epi16(mask, weight);
  }
  static vfloat add(vfloat sum, Weight w, X x) {
    return (vfloat)_mm512_dpbf16_ps((__m512)sum, w, x);
  }
};

#else

// A register of bf16 is two of floats with no shuffle: the even elements are its words shifted up,
// the odd ones its words with the low half cleared. x is packed in that order.
template <>
struct Product<bfloat16> {
  static constexpr int kStep = 2 * kLanes;
  using Packed = float;
  struct X {
    vfloat even;
    vfloat odd;
  };
  using Weight = X;

  static void pack(const bfloat16* x, int64_t n, Packed* packed) {
    for (int64_t i = 0; i < kStep; ++i) {
      packed[i / 2 + (i % 2) * kLanes] = i < n ? to_float(x[i]) : 0.0f;
    }
  }
  static X load_x(const Packed* packed) { return {load(packed), load(packed + kLanes)}; }
  static Weight load_weight(const bfloat16* weight) {
    vuint words;
    std::memcpy(&words, weight, sizeof words);
    return {(vfloat)(words << 16), (vfloat)(words & 0xffff0000u)};
  }
  static Weight load_weight(const bfloat16* weight, int64_t n) {
    bfloat16 padded[kStep] = {};
    std::memcpy(padded, weight, n * sizeof *weight);
    return load_weight(padded);
  }
  static vfloat add(vfloat sum, Weight w, X x) { return sum + w.even * x.even + w.odd * x.odd; }
};

#endif

// Rows of x multiplied in one pass over the weight.
constexpr int kMostRows = kLanes < 8 ? kLanes : 8;

int64_t row_block(int64_t rows) {
  int64_t block = kMostRows;
  while (block > rows) block /= 2;
  return block;
}

template <typename T>
int64_t padded_features(int64_t in_features) {
  constexpr int64_t step = Product<T>::kStep;
  return (in_features + step - 1) / step * step;
}

// What a band of the weight is multiplied with, and where the results go.
template <typename T>
struct Band {
  const typename Product<T>::Packed* packed;
  int64_t in_features;
  const T* weight;
  int64_t weight_stride;
  T* y;
  int64_t y_stride;
};

// Bytes that the one-row groups ask for ahead of themselves: two pages, for the hardware's own
// foresight ends at a page's end.
constexpr int64_t kAhead = 8192;

// sums[o * kRows + m]: what row m of x and output `output + o` of the weight add up to, not yet
// summed over the lanes. Asks for what comes next: the memory ahead for a single output, the
// outputs after these for several.
template <typename T, int kOutputs, int kRows>
inline void multiply_group(const Band<T>& band, int64_t output, vfloat* sums) {
  using P = Product<T>;
  const auto* packed = band.packed;
  const int64_t stride = band.weight_stride;
  const T* weight = band.weight + output * stride;
  vfloat partial[kOutputs * kRows] = {};
  const auto step = [&](const T* at, auto... count) __attribute__((always_inline)) {
    typename P::Weight w[kOutputs];
    for (int o = 0; o < kOutputs; ++o) {
      const T* row = at + o * stride;
      w[o] = P::load_weight(row, count...);
      __builtin_prefetch(kOutputs == 1 ? reinterpret_cast<const char*>(row) + kAhead
                                       : reinterpret_cast<const char*>(row + kOutputs * stride));
    }
    for (int m = 0; m < kRows; ++m) {
      const auto x = P::load_x(packed + m * P::kStep);
      for (int o = 0; o < kOutputs; ++o) {
        partial[o * kRows + m] = P::add(partial[o * kRows + m], w[o], x);
      }
    }
    packed += kRows * P::kStep;
  };
  int64_t i = 0;
  for (; i + P::kStep <= band.in_features; i += P::kStep) step(weight + i);
  if (i < band.in_features) step(weight + i, band.in_features - i);
  for (int k = 0; k < kOutputs * kRows; ++k) sums[k] = partial[k];
}

// kOutputs outputs of kRows rows, kGroup outputs at a time.
template <typename T, int kOutputs, int kGroup, int kRows>
inline void multiply_tile(const Band<T>& band, int64_t output) {
  vfloat sums[kLanes];
  for (int k = kOutputs * kRows; k < kLanes; ++k) sums[k] = vfloat{};
  for (int o = 0; o < kOutputs; o += kGroup) {
    multiply_group<T, kGroup, kRows>(band, output + o, sums + o * kRows);
  }
  T rounded[kLanes];
  store(rounded, sum_each(sums));
  for (int m = 0; m < kRows; ++m) {
    for (int o = 0; o < kOutputs; ++o) {
      band.y[m * band.y_stride + output + o] = rounded[o * kRows + m];
    }
  }
}

template <typename T, int kGroup, int kRows>
void multiply_outputs(const Band<T>& band, int64_t begin, int64_t end) {
  constexpr int kOutputs = kLanes / kRows;
  for (; begin + kOutputs <= end; begin += kOutputs) {
    multiply_tile<T, kOutputs, kGroup, kRows>(band, begin);
  }
  for (; begin < end; ++begin) multiply_tile<T, 1, 1, kRows>(band, begin);
}

// One output after another is one stream through memory, which the hardware foresees best. But then
// x is read again for each output: where it would not stay in the first-level cache, kLanes / kRows
// outputs share a reading.
template <typename T, int kRows>
void multiply_rows(const Band<T>& band, int64_t begin, int64_t end) {
  using Packed = typename Product<T>::Packed;
  const int64_t x_bytes = kRows * band.in_features * static_cast<int64_t>(sizeof(Packed));
  if (x_bytes <= 24 * 1024 || kRows * sizeof(Packed) <= sizeof(T)) {
    multiply_outputs<T, 1, kRows>(band, begin, end);
  } else {
    multiply_outputs<T, kLanes / kRows, kRows>(band, begin, end);
  }
}

}  // namespace

template <typename T>
void pack_linear(const T* x, int64_t x_stride, int64_t rows, int64_t in_features, float* packed) {
  using P = Product<T>;
  auto* to = reinterpret_cast<typename P::Packed*>(packed);
  while (rows > 0) {
    const int64_t block = row_block(rows);
    for (int64_t i = 0; i < in_features; i += P::kStep) {
      const int64_t n = in_features - i < P::kStep ? in_features - i : P::kStep;
      for (int64_t m = 0; m < block; ++m, to += P::kStep) P::pack(x + m * x_stride + i, n, to);
    }
    x += block * x_stride;
    rows -= block;
  }
}

template <typename T>
void linear_band(const float* packed,
                 int64_t rows,
                 int64_t in_features,
                 const T* weight,
                 int64_t weight_stride,
                 T* y,
                 int64_t y_stride,
                 int64_t begin,
                 int64_t end) {
  // A few outputs at a time with all the rows, so that only the first block of rows reads the
  // weight from memory: the next ones find it in the cache.
  constexpr int64_t kCached = 32;
  for (; begin < end; begin += kCached) {
    const int64_t stop = end - begin < kCached ? end : begin + kCached;
    Band<T> band{reinterpret_cast<const typename Product<T>::Packed*>(packed),
                 in_features,
                 weight,
                 weight_stride,
                 y,
                 y_stride};
    for (int64_t left = rows; left > 0;) {
      const int64_t block = row_block(left);
      if (block == 1) multiply_rows<T, 1>(band, begin, stop);
      if (block == 2) multiply_rows<T, 2>(band, begin, stop);
      if (block == 4) multiply_rows<T, 4>(band, begin, stop);
      if constexpr (kMostRows >= 8) {
        if (block == 8) multiply_rows<T, 8>(band, begin, stop);
      }
      band.packed += block * padded_features<T>(in_features);
      band.y += block * y_stride;
      left -= block;
    }
  }
}

#define MISTRAL_EXT_INSTANTIATE(T)                                           \
  template void pack_linear<T>(const T*, int64_t, int64_t, int64_t, float*); \
  template void linear_band<T>(                                              \
      const float*, int64_t, int64_t, const T*, int64_t, T*, int64_t, int64_t, int64_t);

MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
