#include <ATen/Parallel.h>
#include <torch/library.h>

#include <memory>

#include "mistral_ext/kernels/cpu/linear.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

// Rows up to which our kernel is faster than ATen's product.
constexpr int64_t kMostRows = 16;

// Weight elements a thread takes at least.
constexpr int64_t kWeightGrain = 64 * 1024;

bool is_skinny(const at::Tensor& x, const at::Tensor& weight, int64_t rows) {
  return rows >= 1 && rows <= kMostRows && x.scalar_type() != at::kDouble &&
         (weight.stride(1) == 1 || weight.size(1) == 1) && weight.numel() > 0;
}

// 64-byte aligned floats that outlive a call: a step of generation asks for the same ones hundreds
// of times.
class Scratch {
 public:
  float* floats(int64_t n) {
    if (n > capacity_) {
      storage_.reset(static_cast<float*>(::operator new(n * sizeof(float), std::align_val_t{64})));
      capacity_ = n;
    }
    return storage_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> storage_;
  int64_t capacity_ = 0;
};

thread_local Scratch scratch;

at::DimVector output_sizes(const at::Tensor& x, const at::Tensor& weight) {
  at::DimVector sizes(x.sizes());
  sizes.back() = weight.size(0);
  return sizes;
}

at::Tensor linear_cpu(const at::Tensor& x, const at::Tensor& weight) {
  check_linear(x, weight);
  const int64_t in_features = weight.size(1);
  const int64_t out_features = weight.size(0);
  const int64_t rows = in_features == 0 ? 0 : x.numel() / in_features;
  if (!is_skinny(x, weight, rows)) return linear_reference(x, weight);
  const Rows from(x);
  auto y = empty_cpu(output_sizes(x, weight), x);
  float* packed = scratch.floats(kernels::cpu::linear_packed_floats(rows, in_features));
  const auto run = [&]<typename T>(Type<T>) {
    MISTRAL_EXT_AT_LEVEL(pack_linear<T>)
    (from.data<T>(), from.stride(), rows, in_features, packed);
    const auto kernel = MISTRAL_EXT_AT_LEVEL(linear_band<T>);
    const T* weights = data<T>(weight);
    T* to = mutable_data<T>(y);
    const int64_t grain = std::max<int64_t>(1, kWeightGrain / in_features);
    at::parallel_for(0, out_features, grain, [&](int64_t begin, int64_t end) {
      kernel(packed, rows, in_features, weights, weight.stride(0), to, out_features, begin, end);
    });
  };
  switch (x.scalar_type()) {
    case at::kBFloat16:
      run(Type<kernels::bfloat16>{});
      break;
    case at::kHalf:
      run(Type<kernels::float16>{});
      break;
    default:
      run(Type<float>{});
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) { m.impl("linear", &linear_cpu); }

}  // namespace mistral_ext::ops
