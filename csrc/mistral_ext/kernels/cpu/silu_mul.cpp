#include "mistral_ext/kernels/cpu/silu_mul.h"

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

// e^-z overflows to infinity for a very negative z, and 1 / (1 + inf) is the 0 that it should be.
vfloat sigmoid(vfloat z) { return 1.0f / (1.0f + exp(-z)); }

double sigmoid(double z) { return 1.0 / (1.0 + __builtin_exp(-z)); }

template <typename T>
void silu_mul_span(const T* gate, const T* up, T* y, int64_t n) {
  for_each_vector(n, [=](int64_t i, auto count) {
    const vfloat z = load(gate + i, count);
    store(y + i, z / (1.0f + exp(-z)) * load(up + i, count), count);
  });
}

void silu_mul_span(const double* gate, const double* up, double* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0 + __builtin_exp(-gate[i])) * up[i];
}

// silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z)
template <typename T>
void silu_mul_backward_span(
    const T* grad_y, const T* gate, const T* up, T* grad_gate, T* grad_up, int64_t n) {
  for_each_vector(n, [=](int64_t i, auto count) {
    const vfloat grad = load(grad_y + i, count);
    const vfloat z = load(gate + i, count);
    const vfloat s = sigmoid(z);
    const vfloat slope = s * (1.0f + z * (1.0f - s));
    store(grad_gate + i, grad * load(up + i, count) * slope, count);
    store(grad_up + i, grad * z * s, count);
  });
}

void silu_mul_backward_span(const double* grad_y,
                            const double* gate,
                            const double* up,
                            double* grad_gate,
                            double* grad_up,
                            int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double s = sigmoid(gate[i]);
    grad_gate[i] = grad_y[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
    grad_up[i] = grad_y[i] * gate[i] * s;
  }
}

}  // namespace

template <typename T>
void silu_mul(const T* gate, const T* up, T* y, int64_t n) {
  silu_mul_span(gate, up, y, n);
}

template <typename T>
void silu_mul_backward(
    const T* grad_y, const T* gate, const T* up, T* grad_gate, T* grad_up, int64_t n) {
  silu_mul_backward_span(grad_y, gate, up, grad_gate, grad_up, n);
}

#define MISTRAL_EXT_INSTANTIATE(T)                            \
  template void silu_mul<T>(const T*, const T*, T*, int64_t); \
  template void silu_mul_backward<T>(const T*, const T*, const T*, T*, T*, int64_t);

MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(double)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
