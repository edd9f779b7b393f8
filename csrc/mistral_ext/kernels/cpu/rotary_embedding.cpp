#include "mistral_ext/kernels/cpu/rotary_embedding.h"

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

template <typename T>
void rotate(
    const T* x, T* y, int64_t half, const float* cos, const float* sin, float sign, float scale) {
  for_each_vector(half, [=](int64_t i, auto count) {
    const vfloat c = load(cos + i, count);
    const vfloat s = load(sin + i, count) * sign;
    const vfloat low = load(x + i, count);
    const vfloat high = load(x + half + i, count);
    store(y + i, (low * c - high * s) * scale, count);
    store(y + half + i, (high * c + low * s) * scale, count);
  });
}

void rotate(const double* x,
            double* y,
            int64_t half,
            const float* cos,
            const float* sin,
            float sign,
            float scale) {
  for (int64_t i = 0; i < half; ++i) {
    const double c = cos[i];
    const double s = sin[i] * sign;
    const double low = x[i];
    const double high = x[half + i];
    y[i] = (low * c - high * s) * scale;
    y[half + i] = (high * c + low * s) * scale;
  }
}

}  // namespace

template <typename T>
void rotate_heads(const T* x,
                  int64_t head_stride,
                  T* y,
                  int64_t heads,
                  int64_t head_dim,
                  const float* cos_sin,
                  bool backward,
                  float scale) {
  const int64_t half = head_dim / 2;
  const float sign = backward ? -1.0f : 1.0f;
  for (int64_t h = 0; h < heads; ++h) {
    rotate(x + h * head_stride, y + h * head_dim, half, cos_sin, cos_sin + half, sign, scale);
  }
}

#define MISTRAL_EXT_INSTANTIATE(T) \
  template void rotate_heads<T>(const T*, int64_t, T*, int64_t, int64_t, const float*, bool, float);

MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(double)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
