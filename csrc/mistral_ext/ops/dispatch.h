#pragma once

// torch's dtypes as the kernels' own types.

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "mistral_ext/kernels/types.h"

namespace mistral_ext::ops {

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

}  // namespace mistral_ext::ops
