#include "mistral_ext/ops/cpu/linear_few_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <new>

#include "mistral_ext/kernels/cpu/linear.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/cpu/linear_many_rows.h"

namespace mistral_ext::ops {
namespace {

// Elements of a bf16 x that stay in the first-level cache beside the weight.
constexpr int64_t kCachedX = 12 * 1024;

// Rows up to which our kernel is faster than a product that blocks for the caches, as measured.
int64_t most_rows(at::ScalarType dtype, int64_t in_features) {
  switch (dtype) {
    case at::kFloat:
      return 12;
    case at::kBFloat16:
      return std::clamp<int64_t>(kCachedX / in_features, 4, 16);
    case at::kHalf:
      return has_half_product() ? 16 : 48;
    default:
      return 0;
  }
}

// 64-byte aligned floats that outlive a call: a step of generation asks for the same ones hundreds
// of times.
class Scratch {
 public:
  float* floats(int64_t n) {
    if (n > capacity_) {
      storage_.reset(static_cast<float*>(::operator new(n * sizeof(float), kAlignment)));
      capacity_ = n;
    }
    return storage_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<float, Free> storage_;
  int64_t capacity_ = 0;
};

// Outputs that stay together on a thread. A thread's parts follow one another, so that it reads one
// band of memory.
constexpr int64_t kPart = 16;

// Bytes of the weight a thread reads at least: about what one reads while another wakes up.
constexpr int64_t kBytes = 96 * 1024;

int64_t parts(const at::Tensor& weight) { return (weight.size(0) + kPart - 1) / kPart; }

template <typename T>
void multiply(const at::Tensor& x, at::ArrayRef<at::Tensor> weights, std::span<at::Tensor> ys) {
  static thread_local Scratch scratch;
  const Rows rows(x);
  const int64_t in_features = x.size(-1);
  float* packed = scratch.floats(kernels::cpu::linear_packed_floats(rows.count(), in_features));
  const auto pack = MISTRAL_EXT_AT_LEVEL(pack_linear<T>);
  pack(rows.data<T>(), rows.stride(), rows.count(), in_features, packed);

  const auto kernel = MISTRAL_EXT_AT_LEVEL(linear_band<T>);
  int64_t all_parts = 0;
  for (const auto& weight : weights) all_parts += parts(weight);
  const int64_t part_bytes = kPart * in_features * static_cast<int64_t>(sizeof(T));
  const int64_t grain = std::max<int64_t>(1, kBytes / part_bytes);
  at::parallel_for(0, all_parts, grain, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < weights.size() && end > 0; ++i) {
      const int64_t here = parts(weights[i]);
      const int64_t out_features = weights[i].size(0);
      if (begin < here) {
        kernel(packed,
               rows.count(),
               in_features,
               data<T>(weights[i]),
               weights[i].stride(0),
               mutable_data<T>(ys[i]),
               out_features,
               begin * kPart,
               std::min(end * kPart, out_features));
      }
      begin = std::max<int64_t>(0, begin - here);
      end -= here;
    }
  });
}

}  // namespace

bool has_few_rows(const at::Tensor& x, const at::Tensor& weight) {
  if (weight.numel() == 0) return false;
  const int64_t rows = x.numel() / weight.size(1);
  return rows >= 1 && rows <= most_rows(x.scalar_type(), weight.size(1)) &&
         (weight.stride(1) == 1 || weight.size(1) == 1);
}

void linear_few_rows(const at::Tensor& x,
                     at::ArrayRef<at::Tensor> weights,
                     std::span<at::Tensor> ys) {
  for (size_t i = 0; i < weights.size(); ++i) {
    at::DimVector sizes(x.sizes());
    sizes.back() = weights[i].size(0);
    ys[i] = empty_cpu(sizes, x);
  }
  switch (x.scalar_type()) {
    case at::kBFloat16:
      return multiply<kernels::bfloat16>(x, weights, ys);
    case at::kHalf:
      return multiply<kernels::float16>(x, weights, ys);
    default:
      return multiply<float>(x, weights, ys);
  }
}

}  // namespace mistral_ext::ops
