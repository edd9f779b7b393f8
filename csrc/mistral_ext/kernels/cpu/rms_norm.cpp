#include "mistral_ext/kernels/cpu/rms_norm.h"

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

float reciprocal_root(float squares, int64_t n, double eps) {
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + static_cast<float>(eps));
}

double reciprocal_root(double squares, int64_t n, double eps) {
  return 1.0 / __builtin_sqrt(squares / static_cast<double>(n) + eps);
}

template <typename T>
float sum_of_squares(const T* x, int64_t n) {
  return sum_over_vectors(n, [=](int64_t i, auto count) {
    const vfloat v = load(x + i, count);
    return v * v;
  });
}

double sum_of_squares(const double* x, int64_t n) {
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) total += x[i] * x[i];
  return total;
}

// total = round(x + residual); returns the sum of the squares of what was written.
template <typename T>
float add_rows(const T* x, const T* residual, T* total, int64_t n) {
  return sum_over_vectors(n, [=](int64_t i, auto count) {
    const vfloat v = round_to<T>(load(x + i, count) + load(residual + i, count));
    store(total + i, v, count);
    return v * v;
  });
}

double add_rows(const double* x, const double* residual, double* total, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] = x[i] + residual[i];
  return sum_of_squares(total, n);
}

// y = round(x * scale) * weight
template <typename T>
void scale_row(const T* x, const T* weight, T* y, int64_t n, float scale) {
  for_each_vector(n, [=](int64_t i, auto count) {
    const vfloat normalised = round_to<T>(load(x + i, count) * scale);
    store(y + i, normalised * load(weight + i, count), count);
  });
}

void scale_row(const double* x, const double* weight, double* y, int64_t n, double scale) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

// sum(a * b * c)
template <typename T>
float triple_product(const T* a, const T* b, const T* c, int64_t n) {
  return sum_over_vectors(n, [=](int64_t i, auto count) {
    return load(a + i, count) * load(b + i, count) * load(c + i, count);
  });
}

double triple_product(const double* a, const double* b, const double* c, int64_t n) {
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) total += a[i] * b[i] * c[i];
  return total;
}

// grad_x = scale * (grad_y * weight - x * along) + grad_sum, grad_weight += grad_y * round(x *
// scale)
template <typename T>
void differentiate_row(const T* grad_y,
                       const T* grad_sum,
                       const T* x,
                       const T* weight,
                       T* grad_x,
                       float* grad_weight,
                       int64_t n,
                       float scale,
                       float along) {
  for_each_vector(n, [=](int64_t i, auto count) {
    const vfloat grad = load(grad_y + i, count);
    const vfloat v = load(x + i, count);
    vfloat result = scale * (grad * load(weight + i, count) - v * along);
    if (grad_sum != nullptr) result += load(grad_sum + i, count);
    store(grad_x + i, result, count);
    store(grad_weight + i, load(grad_weight + i, count) + grad * round_to<T>(v * scale), count);
  });
}

void differentiate_row(const double* grad_y,
                       const double* grad_sum,
                       const double* x,
                       const double* weight,
                       double* grad_x,
                       double* grad_weight,
                       int64_t n,
                       double scale,
                       double along) {
  for (int64_t i = 0; i < n; ++i) {
    const double result = scale * (grad_y[i] * weight[i] - x[i] * along);
    grad_x[i] = grad_sum != nullptr ? result + grad_sum[i] : result;
    grad_weight[i] += grad_y[i] * x[i] * scale;
  }
}

}  // namespace

template <typename T>
void rms_norm(
    const T* x, int64_t x_stride, const T* weight, T* y, int64_t rows, int64_t hidden, double eps) {
  for (int64_t r = 0; r < rows; ++r, x += x_stride, y += hidden) {
    const auto scale = reciprocal_root(sum_of_squares(x, hidden), hidden, eps);
    scale_row(x, weight, y, hidden, scale);
  }
}

template <typename T>
void add_rms_norm(const T* x,
                  int64_t x_stride,
                  const T* residual,
                  int64_t residual_stride,
                  const T* weight,
                  T* y,
                  T* sum,
                  int64_t rows,
                  int64_t hidden,
                  double eps) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto squares = add_rows(x, residual, sum, hidden);
    scale_row(sum, weight, y, hidden, reciprocal_root(squares, hidden, eps));
    x += x_stride;
    residual += residual_stride;
    y += hidden;
    sum += hidden;
  }
}

// With n = x scale and g = grad_y weight, the gradient of x is scale (g - n mean(g n)).
template <typename T, typename Accumulator>
void rms_norm_backward(const T* grad_y,
                       const T* grad_sum,
                       const T* x,
                       const T* weight,
                       T* grad_x,
                       Accumulator* grad_weight,
                       int64_t rows,
                       int64_t hidden,
                       double eps) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto scale = reciprocal_root(sum_of_squares(x, hidden), hidden, eps);
    const auto mean = triple_product(grad_y, weight, x, hidden) / static_cast<Accumulator>(hidden);
    differentiate_row(
        grad_y, grad_sum, x, weight, grad_x, grad_weight, hidden, scale, mean * scale * scale);
    grad_y += hidden;
    if (grad_sum != nullptr) grad_sum += hidden;
    x += hidden;
    grad_x += hidden;
  }
}

#define MISTRAL_EXT_INSTANTIATE(T, Accumulator)                                          \
  template void rms_norm<T>(const T*, int64_t, const T*, T*, int64_t, int64_t, double);  \
  template void add_rms_norm<T>(                                                         \
      const T*, int64_t, const T*, int64_t, const T*, T*, T*, int64_t, int64_t, double); \
  template void rms_norm_backward<T, Accumulator>(                                       \
      const T*, const T*, const T*, const T*, T*, Accumulator*, int64_t, int64_t, double);

MISTRAL_EXT_INSTANTIATE(float, float)
MISTRAL_EXT_INSTANTIATE(double, double)
MISTRAL_EXT_INSTANTIATE(bfloat16, float)
MISTRAL_EXT_INSTANTIATE(float16, float)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
