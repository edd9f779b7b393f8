#pragma once

// What the CPU kernels of the operators share: torch's dtypes as the kernels' own types, rows, and
// the work a thread is worth.

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/MaybeOwned.h>

#include <algorithm>
#include <cstdint>

#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::ops {

// Elements a thread takes at least: below this, waking another thread costs more than it saves.
inline constexpr int64_t kGrain = 32 * 1024;

// The same in rows of `width` elements.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width));
}

template <typename T>
struct Type {
  using type = T;
};

// Calls function(Type<T>{}) with the kernels' type for a dtype that check_float has let through.
template <typename Function>
decltype(auto) dispatch_float(at::ScalarType dtype, Function&& function) {
  switch (dtype) {
    case at::kDouble:
      return function(Type<double>{});
    case at::kBFloat16:
      return function(Type<kernels::bfloat16>{});
    case at::kHalf:
      return function(Type<kernels::float16>{});
    default:
      return function(Type<float>{});
  }
}

template <typename T>
const T* data(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <typename T>
T* mutable_data(at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// A contiguous tensor of these sizes with x's dtype. Not through the dispatcher: a decode step
// makes hundreds of tensors, and each would pay for it.
inline at::Tensor empty_cpu(at::IntArrayRef sizes, const at::Tensor& x) {
  return at::detail::empty_cpu(sizes, x.scalar_type());
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
