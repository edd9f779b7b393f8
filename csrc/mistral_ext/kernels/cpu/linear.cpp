#include "mistral_ext/kernels/cpu/linear.h"

#include "mistral_ext/kernels/cpu/simd.h"

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

// The sums of kRows rows of x with kOutputs rows of the weight, all held in registers.
template <typename T, int kOutputs, int kRows>
inline void multiply_tile(const typename Product<T>::Packed* packed,
                          int64_t in_features,
                          const T* weight,
                          int64_t weight_stride,
                          T* y,
                          int64_t y_stride) {
  using P = Product<T>;
  vfloat sums[kOutputs][kRows] = {};
  const auto step = [&](const T* at, auto... count) __attribute__((always_inline)) {
    typename P::Weight w[kOutputs];
    for (int o = 0; o < kOutputs; ++o) w[o] = P::load_weight(at + o * weight_stride, count...);
    for (int m = 0; m < kRows; ++m) {
      const auto x = P::load_x(packed + m * P::kStep);
      for (int o = 0; o < kOutputs; ++o) sums[o][m] = P::add(sums[o][m], w[o], x);
    }
    packed += kRows * P::kStep;
  };
  int64_t i = 0;
  for (; i + P::kStep <= in_features; i += P::kStep) step(weight + i);
  if (i < in_features) step(weight + i, in_features - i);
  for (int o = 0; o < kOutputs; ++o) {
    for (int m = 0; m < kRows; ++m) y[m * y_stride + o] = from_float<T>(sum(sums[o][m]));
  }
}

// Rows of x that share a pass over a tile of the weight, from 8 down.
constexpr int64_t kRowBlocks[] = {8, 4, 2, 1};

int64_t row_block(int64_t rows) {
  for (const int64_t block : kRowBlocks) {
    if (rows >= block) return block;
  }
  return 0;
}

template <typename T>
int64_t padded_features(int64_t in_features) {
  constexpr int64_t step = Product<T>::kStep;
  return (in_features + step - 1) / step * step;
}

// kOutputs rows of the weight with every row of x. The first block of rows brings the tile in, the
// others find it in the cache.
template <typename T, int kOutputs>
void multiply_outputs(const typename Product<T>::Packed* packed,
                      int64_t rows,
                      int64_t in_features,
                      const T* weight,
                      int64_t weight_stride,
                      T* y,
                      int64_t y_stride) {
  const int64_t padded = padded_features<T>(in_features);
  while (rows > 0) {
    const int64_t block = row_block(rows);
    switch (block) {
      case 8:
        multiply_tile<T, kOutputs, 8>(packed, in_features, weight, weight_stride, y, y_stride);
        break;
      case 4:
        multiply_tile<T, kOutputs, 4>(packed, in_features, weight, weight_stride, y, y_stride);
        break;
      case 2:
        multiply_tile<T, kOutputs, 2>(packed, in_features, weight, weight_stride, y, y_stride);
        break;
      default:
        multiply_tile<T, kOutputs, 1>(packed, in_features, weight, weight_stride, y, y_stride);
    }
    packed += block * padded;
    y += block * y_stride;
    rows -= block;
  }
}

// Rows of the weight in a tile: as many as the registers hold beside the x rows' sums.
int64_t outputs_in_tile(int64_t rows) {
  constexpr int64_t half = kVectorBytes == 64 ? 1 : 2;
  return (rows >= 8 ? 2 : rows >= 2 ? 4 : 8) / half;
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
  const auto* x = reinterpret_cast<const typename Product<T>::Packed*>(packed);
  const auto run = [&]<int kOutputs>() {
    for (; begin + kOutputs <= end; begin += kOutputs) {
      multiply_outputs<T, kOutputs>(
          x, rows, in_features, weight + begin * weight_stride, weight_stride, y + begin, y_stride);
    }
  };
  const int64_t outputs = outputs_in_tile(rows);
  if (outputs == 8) run.template operator()<8>();
  if (outputs >= 4) run.template operator()<4>();
  if (outputs >= 2) run.template operator()<2>();
  run.template operator()<1>();
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
