#include "mistral_ext/ops/linear_cross_entropy_parts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cross_entropy.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

// Rows of a gradient scaled and rounded at a time: no second one in fp32 comes to be.
constexpr int64_t kScaledRows = 2048;

}  // namespace

KeptRows::KeptRows(const at::Tensor& labels, int64_t ignore_index, int64_t vocab_size)
    : indices_(labels.ne(ignore_index).nonzero().squeeze(1)),
      n_(labels.size(0)),
      all_(indices_.size(0) == n_) {
  labels_ = of(labels).contiguous();
  check_label_range("linear_cross_entropy", labels_, vocab_size);
}

at::Tensor KeptRows::of(const at::Tensor& x) const {
  return all_ ? x : x.index_select(0, indices_);
}

at::Tensor KeptRows::put_back(const at::Tensor& rows) const {
  if (all_) return rows;
  at::DimVector sizes(rows.sizes());
  sizes[0] = n_;
  return at::zeros(sizes, rows.options()).index_copy_(0, indices_, rows);
}

at::Tensor transposed_product(const at::Tensor& a, const at::Tensor& b) {
  const auto wide = accumulation_dtype(a);
  if (a.scalar_type() != wide && a.is_cuda()) return at::mm(a.t(), b, wide);
  if (a.scalar_type() == at::kHalf) return ops::linear(a.t().to(wide), b.t().to(wide));
  return ops::linear(a.t(), b.t());
}

at::Tensor scaled(const at::Tensor& gradient, const at::Tensor& factor, at::ScalarType dtype) {
  const auto wide = accumulation_dtype(gradient);
  const auto wide_factor = factor.to(wide);
  if (gradient.scalar_type() == dtype && dtype == wide) return gradient.mul(wide_factor);
  auto result = at::empty(gradient.sizes(), gradient.options().dtype(dtype));
  for (int64_t begin = 0; begin < gradient.size(0); begin += kScaledRows) {
    const int64_t count = std::min(kScaledRows, gradient.size(0) - begin);
    result.narrow(0, begin, count)
        .copy_(gradient.narrow(0, begin, count).to(wide).mul(wide_factor));
  }
  return result;
}

}  // namespace mistral_ext::ops
