#include "mistral_ext/kernels/cpu/cross_entropy.h"

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

constexpr float kNegativeInfinity = -__builtin_inff();

// A vector of logits; lanes beyond the row weigh nothing.
template <typename T>
vfloat load_logits(const T* p, Whole) {
  return load(p);
}

template <typename T>
vfloat load_logits(const T* p, int64_t n) {
  return load_partial(p, n, kNegativeInfinity);
}

// A row's softmax is e^(x - largest) / total.
template <typename Number>
struct Softmax {
  Number largest;
  Number total;
};

template <typename T>
Softmax<float> softmax(const T* x, int64_t n) {
  vfloat most = broadcast(kNegativeInfinity);
  for_each_vector(n, [&](int64_t i, auto count) { most = max(most, load_logits(x + i, count)); });
  const float largest = max(most);
  const float total = sum_over_vectors(
      n, [=](int64_t i, auto count) { return exp(load_logits(x + i, count) - largest); });
  return {largest, total};
}

Softmax<double> softmax(const double* x, int64_t n) {
  double largest = x[0];
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) total += __builtin_exp(x[i] - largest);
  return {largest, total};
}

// The distance from the largest logit is taken first: both terms are then small where the model is
// sure and right, and little is lost.
float loss(const Softmax<float>& row, float logit) {
  return __builtin_logf(row.total) - (logit - row.largest);
}

double loss(const Softmax<double>& row, double logit) {
  return __builtin_log(row.total) - (logit - row.largest);
}

// gradient and x may be one array: what x holds at the label is read first.
template <typename T>
void differentiate(
    const T* x, int64_t n, int64_t label, const Softmax<float>& row, float scale, T* gradient) {
  const float inverse = 1.0f / row.total;
  const float at_label = exp(broadcast(to_float(x[label]) - row.largest))[0] * inverse - 1.0f;
  const float factor = scale * inverse;
  for_each_vector(n, [=](int64_t i, auto count) {
    store(gradient + i, exp(load_logits(x + i, count) - row.largest) * factor, count);
  });
  gradient[label] = from_float<T>(scale * at_label);
}

void differentiate(const double* x,
                   int64_t n,
                   int64_t label,
                   const Softmax<double>& row,
                   double scale,
                   double* gradient) {
  const double at_label = __builtin_exp(x[label] - row.largest) / row.total - 1.0;
  for (int64_t i = 0; i < n; ++i) {
    gradient[i] = scale * (__builtin_exp(x[i] - row.largest) / row.total);
  }
  gradient[label] = scale * at_label;
}

}  // namespace

template <typename T, typename Loss>
void cross_entropy(const T* logits,
                   int64_t stride,
                   const int64_t* labels,
                   int64_t ignore_index,
                   Loss* losses,
                   int64_t rows,
                   int64_t vocab_size) {
  for (int64_t r = 0; r < rows; ++r, logits += stride) {
    losses[r] = 0;
    if (labels[r] == ignore_index) continue;
    losses[r] = loss(softmax(logits, vocab_size), to_float(logits[labels[r]]));
  }
}

template <typename T, typename Loss>
void cross_entropy_gradient(const T* logits,
                            const int64_t* labels,
                            Loss scale,
                            T* gradient,
                            Loss* losses,
                            int64_t rows,
                            int64_t vocab_size) {
  for (int64_t r = 0; r < rows; ++r, logits += vocab_size, gradient += vocab_size) {
    const auto row = softmax(logits, vocab_size);
    losses[r] = loss(row, to_float(logits[labels[r]]));
    differentiate(logits, vocab_size, labels[r], row, scale, gradient);
  }
}

#define MISTRAL_EXT_INSTANTIATE(T, Loss)                                    \
  template void cross_entropy<T, Loss>(                                     \
      const T*, int64_t, const int64_t*, int64_t, Loss*, int64_t, int64_t); \
  template void cross_entropy_gradient<T, Loss>(                            \
      const T*, const int64_t*, Loss, T*, Loss*, int64_t, int64_t);

MISTRAL_EXT_INSTANTIATE(float, float)
MISTRAL_EXT_INSTANTIATE(double, double)
MISTRAL_EXT_INSTANTIATE(bfloat16, float)
MISTRAL_EXT_INSTANTIATE(float16, float)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
