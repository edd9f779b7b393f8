#pragma once

// Products of some rows by a kernel, against sums in fp64.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "device.cuh"
#include "mistral_ext/kernels/cuda/linear_few_rows.h"

namespace mistral_ext::trial {
using kernels::bfloat16;
using kernels::float16;
using kernels::cuda::LinearEpilogue;
using kernels::cuda::LinearFewRows;
using kernels::cuda::StepLaunch;

inline int failures = 0;
inline int cases = 0;

struct Case {
  int64_t in_features;
  std::vector<int64_t> out_features;
  LinearEpilogue epilogue;
  bool has_norm;
};

inline constexpr float kEps = 1e-5f;

// One thread a row: x as the product sees it.
template <typename T>
__global__ void normalise_kernel(
    const T* x, int64_t stride, const T* weight, int64_t features, double* y) {
  const T* row = x + threadIdx.x * stride;
  double sum = 0;
  for (int64_t i = 0; i < features; ++i) sum += to_double(row[i]) * to_double(row[i]);
  const double scale = 1.0 / sqrt(sum / features + kEps);
  for (int64_t i = 0; i < features; ++i) {
    double v = to_double(row[i]);
    if (weight != nullptr) {
      v = to_double(from_double<T>(to_double(from_double<T>(v * scale)) * to_double(weight[i])));
    }
    y[threadIdx.x * features + i] = v;
  }
}

// A warp an output: the product and the sum of its terms' sizes.
template <typename T>
__global__ void product_kernel(
    const double* x, const T* weight, int64_t features, double* exact, double* magnitude) {
  const int64_t row = blockIdx.y;
  double sum = 0;
  double size = 0;
  for (int64_t i = threadIdx.x; i < features; i += 32) {
    const double term = x[row * features + i] * to_double(weight[blockIdx.x * features + i]);
    sum += term;
    size += fabs(term);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    size += __shfl_xor_sync(0xffffffffu, size, offset);
  }
  if (threadIdx.x == 0) {
    exact[row * gridDim.x + blockIdx.x] = sum;
    magnitude[row * gridDim.x + blockIdx.x] = size;
  }
}

template <typename T>
class Trial {
 public:
  using Function = cudaError_t (*)(const LinearFewRows<T>&, const StepLaunch&);

  Trial(const Case& c, Function function, int most_rows)
      : case_(c),
        function_(function),
        x_stride_(c.in_features + 16),
        x_(random<T>(most_rows * x_stride_, 0.1f, 1.0f, 1)),
        norm_(random<T>(c.in_features, 1.0f, 0.3f, 2)) {
    for (size_t i = 0; i < c.out_features.size(); ++i) {
      const auto n = static_cast<size_t>(c.out_features[i]);
      weights_.push_back(random<T>(n * c.in_features, 0.0f, 0.1f, 10 + i));
    }
    residual_stride_ = c.out_features[0] + 3;
    residual_ = std::make_unique<Array<T>>(random<T>(most_rows * residual_stride_, 0.0f, 1.0f, 5));
  }

  // Every matrix's output, padding included, poisoned beforehand.
  std::vector<std::vector<T>> run(int rows, int first_row, bool has_bulk_copies) {
    LinearFewRows<T> args = {};
    args.x = x_.data() + first_row * x_stride_;
    args.x_stride = x_stride_;
    args.norm_weight = case_.has_norm ? norm_.data() : nullptr;
    args.eps = kEps;
    args.count = static_cast<int>(weights_.size());
    args.residual = residual_->data() + first_row * residual_stride_;
    args.residual_stride = residual_stride_;
    args.rows = rows;
    args.in_features = case_.in_features;
    args.epilogue = case_.epilogue;
    std::vector<Array<T>> outputs;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const int64_t stride = case_.out_features[i] + 5;
      outputs.emplace_back(rows * stride, 0xff);
      args.matrices[i] = {weights_[i].data(), case_.out_features[i], outputs[i].data(), stride};
    }
    int sms = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    CUDA_CHECK(function_(args, StepLaunch{nullptr, sms, has_bulk_copies, false}));
    CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<std::vector<T>> results;
    for (const auto& output : outputs) results.push_back(output.host());
    return results;
  }

  void check_values(int rows) {
    const auto results = run(rows, 0, true);
    const size_t written = case_.epilogue == LinearEpilogue::kSwiGlu ? 1 : weights_.size();
    const auto residual = residual_->host();
    Array<double> x(rows * case_.in_features);
    normalise_kernel<<<1, rows>>>(
        x_.data(), x_stride_, case_.has_norm ? norm_.data() : nullptr, case_.in_features, x.data());
    std::vector<std::vector<double>> exact;
    std::vector<std::vector<double>> magnitude;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const auto n = static_cast<unsigned>(case_.out_features[i]);
      Array<double> sums(rows * n);
      Array<double> sizes(rows * n);
      product_kernel<<<dim3(n, rows), 32>>>(
          x.data(), weights_[i].data(), case_.in_features, sums.data(), sizes.data());
      CUDA_CHECK(cudaGetLastError());
      exact.push_back(sums.host());
      magnitude.push_back(sizes.host());
    }
    double worst = 0;
    bool poison_kept = true;
    for (size_t i = 0; i < results.size(); ++i) {
      const int64_t n = case_.out_features[i];
      for (int64_t m = 0; m < rows; ++m) {
        for (int64_t r = 0; r < n + 5; ++r) {
          const T bits = results[i][m * (n + 5) + r];
          if (r >= n || i >= written) {
            poison_kept = poison_kept && bits.bits == 0xffff;
            continue;
          }
          const int64_t at = m * n + r;
          double want = exact[i][at];
          double size = magnitude[i][at];
          if (case_.epilogue == LinearEpilogue::kAdd) {
            want += to_double(residual[m * residual_stride_ + r]);
          } else if (case_.epilogue == LinearEpilogue::kSwiGlu) {
            const double gate = want;
            const double silu = gate / (1.0 + std::exp(-gate));
            want = silu * exact[1][at];
            size = 1.1 * size * std::fabs(exact[1][at]) + std::fabs(silu) * magnitude[1][at];
          }
          // A rounding to the dtype; fp32 sums; a rounding of the normalised x that goes the other
          // way, now and then.
          const double eps = kEpsilon<T>;
          const double bound =
              0.51 * eps * std::fabs(want) + 8 * 0x1p-23 * size +
              (case_.has_norm ? 2 * eps * size / std::sqrt(case_.in_features) : 0) + 1e-7;
          const double error = std::fabs(to_double(bits) - want);
          worst = std::max(worst, std::isnan(error) ? INFINITY : error / bound);
        }
      }
    }
    report(rows,
           worst <= 1.0 && poison_kept,
           "worst error over its bound %.3g, poison %s",
           worst,
           poison_kept ? "kept" : "overwritten");
  }

  // The results of a kernel with and without bulk copies.
  void check_kernels(int rows) {
    report(rows, same(run(rows, 0, true), run(rows, 0, false)), "the two kernels differ%s", "");
  }

  // The rows [first, first + count) among `rows` and by themselves.
  void check_rows(int rows, int first, int count) {
    const auto all = run(rows, 0, true);
    const auto some = run(count, first, true);
    bool equal = true;
    for (size_t i = 0; i < some.size(); ++i) {
      const size_t stride = some[i].size() / count;
      equal = equal &&
              std::memcmp(
                  some[i].data(), all[i].data() + first * stride, sizeof(T) * some[i].size()) == 0;
    }
    report(rows, equal, "rows differ from themselves alone%s", "");
  }

 private:
  static bool same(const std::vector<std::vector<T>>& a, const std::vector<std::vector<T>>& b) {
    bool equal = true;
    for (size_t i = 0; i < a.size(); ++i) {
      equal = equal && std::memcmp(a[i].data(), b[i].data(), 2 * a[i].size()) == 0;
    }
    return equal;
  }

  template <typename... Args>
  void report(int rows, bool passed, const char* format, Args... args) const {
    ++cases;
    if (passed) return;
    if (++failures > 30) return;
    std::printf("FAILED rows %d in %lld out %lld (%zu) epilogue %d norm %d eps %.0e: ",
                rows,
                static_cast<long long>(case_.in_features),
                static_cast<long long>(case_.out_features[0]),
                case_.out_features.size(),
                static_cast<int>(case_.epilogue),
                static_cast<int>(case_.has_norm),
                kEpsilon<T>);
    std::printf(format, args...);
    std::printf("\n");
  }

  Case case_;
  Function function_;
  int64_t x_stride_;
  int64_t residual_stride_;
  Array<T> x_;
  Array<T> norm_;
  std::vector<Array<T>> weights_;
  std::unique_ptr<Array<T>> residual_;
};

}  // namespace mistral_ext::trial
