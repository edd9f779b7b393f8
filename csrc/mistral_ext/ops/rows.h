#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/MaybeOwned.h>

#include <cstdint>

#include "mistral_ext/ops/dispatch.h"

namespace mistral_ext::ops {

// Whether the elements of the last dimension lie side by side.
inline bool has_dense_rows(const at::Tensor& x) { return x.stride(-1) == 1 || x.size(-1) == 1; }

// x itself, or a copy for which that holds.
inline at::Tensor with_dense_rows(const at::Tensor& x) {
  return has_dense_rows(x) ? x : x.contiguous();
}

// x as count rows of x.size(-1) elements, stride apart, with the elements of a row side by side.
// Copied only where the strides do not allow that: a slice of the last dimension does.
class Rows {
 public:
  explicit Rows(const at::Tensor& x) : count_(1), stride_(x.size(-1)) {
    const int64_t last = x.dim() - 1;
    for (int64_t d = 0; d < last; ++d) count_ *= x.size(d);
    if (x.is_contiguous() || strides_allow(x)) {
      tensor_ = c10::MaybeOwned<at::Tensor>::borrowed(x);
    } else {
      tensor_ = c10::MaybeOwned<at::Tensor>::owned(x.contiguous());
      stride_ = x.size(-1);
    }
  }

  int64_t count() const { return count_; }
  int64_t stride() const { return stride_; }

  template <typename T>
  const T* data() const {
    return ops::data<T>(*tensor_);
  }

 private:
  // Whether the leading dimensions are one dimension of equal steps; sets stride_ when they are.
  bool strides_allow(const at::Tensor& x) {
    if (x.size(-1) > 1 && x.stride(-1) != 1) return false;
    int64_t steps = 0;  // 0: no dimension of more than one row seen yet
    int64_t stride = 0;
    for (int64_t d = x.dim() - 2; d >= 0; --d) {
      if (x.size(d) == 1) continue;
      if (steps == 0) {
        stride = x.stride(d);
        steps = x.size(d);
      } else if (x.stride(d) == stride * steps) {
        steps *= x.size(d);
      } else {
        return false;
      }
    }
    stride_ = stride;
    return true;
  }

  c10::MaybeOwned<at::Tensor> tensor_;
  int64_t count_;
  int64_t stride_;
};

}  // namespace mistral_ext::ops
