// No kernel reads or writes past its arrays: each array ends where a page begins that the process
// may not touch, at every level of this machine and for lengths around the vectors' widths.

#include <gtest/gtest.h>

#include "kernels/guarded_array.h"
#include "mistral_ext/kernels/cpu/cross_entropy.h"
#include "mistral_ext/kernels/cpu/linear.h"
#include "mistral_ext/kernels/cpu/rms_norm.h"
#include "mistral_ext/kernels/cpu/rotary_embedding.h"
#include "mistral_ext/kernels/cpu/silu_mul.h"

namespace mistral_ext::kernels::cpu {
namespace {

constexpr int64_t kLengths[] = {1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100};

// The kernels of one level, all types; 4099 features are more than a piece of x that linear cuts.
#define MISTRAL_EXT_RUN(LEVEL)                                                                \
  template <typename T, typename Accumulator>                                                 \
  void run_##LEVEL(int64_t n) {                                                               \
    GuardedArray<T> a(n), b(n), c(n), d(n), e(n);                                             \
    GuardedArray<Accumulator> sums(n);                                                        \
    LEVEL::rms_norm<T>(a.get(), n, b.get(), c.get(), 1, n, 1e-5);                             \
    LEVEL::add_rms_norm<T>(a.get(), n, b.get(), n, c.get(), d.get(), e.get(), 1, n, 1e-5);    \
    LEVEL::rms_norm_backward<T, Accumulator>(                                                 \
        a.get(), b.get(), c.get(), d.get(), e.get(), sums.get(), 1, n, 1e-5);                 \
    LEVEL::silu_mul<T>(a.get(), b.get(), c.get(), n);                                         \
    LEVEL::silu_mul_backward<T>(a.get(), b.get(), c.get(), d.get(), e.get(), n);              \
    GuardedArray<Accumulator> loss(1);                                                        \
    GuardedArray<int64_t> label(1);                                                           \
    LEVEL::cross_entropy<T, Accumulator>(a.get(), n, label.get(), -100, loss.get(), 1, n);    \
    LEVEL::cross_entropy_gradient<T, Accumulator>(                                            \
        a.get(), label.get(), 1, b.get(), loss.get(), 1, n);                                  \
    GuardedArray<T> from(2 * n), to(2 * n);                                                   \
    GuardedArray<float> angles(2 * n);                                                        \
    LEVEL::rotate_heads<T>(from.get(), 2 * n, to.get(), 1, 2 * n, angles.get(), false, 1.0f); \
  }                                                                                           \
  template <typename T>                                                                       \
  void run_linear_##LEVEL(int64_t n) {                                                        \
    for (const int64_t rows : {1, 2, 7, 8, 9}) {                                              \
      for (const int64_t outputs : {1, 17}) {                                                 \
        GuardedArray<T> x(rows * n), weight(outputs * n), y(rows * outputs);                  \
        GuardedArray<float> packed(linear_packed_floats(rows, n));                            \
        LEVEL::pack_linear<T>(x.get(), n, rows, n, packed.get());                             \
        LEVEL::linear_band<T>(                                                                \
            packed.get(), rows, n, weight.get(), n, y.get(), outputs, 0, outputs);            \
      }                                                                                       \
    }                                                                                         \
  }                                                                                           \
  TEST(GuardPage, IsNotTouchedAtLevel_##LEVEL) {                                              \
    if (Level::LEVEL > machine_level()) GTEST_SKIP() << "this machine lacks " #LEVEL;         \
    run_linear_##LEVEL<float>(4099);                                                          \
    run_linear_##LEVEL<bfloat16>(4099);                                                       \
    for (const int64_t n : kLengths) {                                                        \
      run_##LEVEL<float, float>(n);                                                           \
      run_##LEVEL<double, double>(n);                                                         \
      run_##LEVEL<bfloat16, float>(n);                                                        \
      run_##LEVEL<float16, float>(n);                                                         \
      run_linear_##LEVEL<float>(n);                                                           \
      run_linear_##LEVEL<bfloat16>(n);                                                        \
      run_linear_##LEVEL<float16>(n);                                                         \
    }                                                                                         \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_RUN)
#undef MISTRAL_EXT_RUN

}  // namespace
}  // namespace mistral_ext::kernels::cpu
