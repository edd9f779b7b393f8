#pragma once

// What the two ways through linear_cross_entropy share: with the gradients made along with the loss
// (linear_cross_entropy_chunks.cpp) and with the logits kept (linear_cross_entropy_logits.cpp).

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace mistral_ext::ops {

// The rows whose label is not ignore_index. Throws IndexError where a label is out of range.
class KeptRows {
 public:
  KeptRows(const at::Tensor& labels, int64_t ignore_index, int64_t vocab_size);

  int64_t count() const { return indices_.size(0); }
  bool all() const { return all_; }
  const at::Tensor& labels() const { return labels_; }  // [count], contiguous

  // x: [n, ...] -> [count, ...]
  at::Tensor of(const at::Tensor& x) const;

  // rows: [count, ...] -> [n, ...], 0 where a row was left out.
  at::Tensor put_back(const at::Tensor& rows) const;

 private:
  at::Tensor indices_;
  at::Tensor labels_;
  int64_t n_;
  bool all_;
};

// Calls part(begin, length) for parts of about one size whose logits, in the accumulation dtype,
// take at most 64 MiB.
template <typename Part>
void for_each_chunk(int64_t rows, int64_t vocab_size, int64_t itemsize, Part part) {
  constexpr int64_t kChunkBytes = 64 * 1024 * 1024;
  const int64_t most = std::max<int64_t>(1, kChunkBytes / (vocab_size * itemsize));
  const int64_t chunks = std::max<int64_t>(1, (rows + most - 1) / most);
  const int64_t step = std::max<int64_t>(1, (rows + chunks - 1) / chunks);
  for (int64_t begin = 0; begin < rows; begin += step) part(begin, std::min(step, rows - begin));
}

// Columns of `a` whose transposed product is made at a time on CPU: it is used while it is in the
// cache.
constexpr int64_t kOutputs = 2048;

// a^T b in the accumulation dtype, but for bf16 on CPU, where it comes rounded. a: [rows, m],
// b: [rows, n]. Sums over rows of float16 could leave its range.
at::Tensor transposed_product(const at::Tensor& a, const at::Tensor& b);

// gradient * factor in `dtype`, multiplied in the accumulation dtype: the gradient of a mean is a
// factor that 16 bits would not hold. factor: a scalar.
at::Tensor scaled(const at::Tensor& gradient, const at::Tensor& factor, at::ScalarType dtype);

}  // namespace mistral_ext::ops
