#pragma once

// The checks several operators share. The comparison is inline; a message is made on failure only.

#include <ATen/core/Tensor.h>
#include <c10/util/StringUtil.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::ops {

inline bool is_float_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf ||
         dtype == at::kDouble;
}

// The dtype arithmetic is done in: fp64 for fp64, fp32 for the others.
inline at::ScalarType accumulation_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline void check_float(const char* op, const char* argument, const at::Tensor& x) {
  MISTRAL_EXT_CHECK(is_float_dtype(x.scalar_type()),
                    "{}: {} must be float32, bfloat16, float16 or float64, got {}",
                    op,
                    argument,
                    c10::toString(x.scalar_type()));
}

inline void check_device(const char* op,
                         const char* argument,
                         const at::Tensor& x,
                         const char* like_argument,
                         const at::Tensor& like) {
  MISTRAL_EXT_CHECK(x.device() == like.device(),
                    "{}: {} must be on {}'s device {}, got {}",
                    op,
                    argument,
                    like_argument,
                    like.device().str(),
                    x.device().str());
}

inline void check_dtype_and_device(const char* op,
                                   const char* argument,
                                   const at::Tensor& x,
                                   const char* like_argument,
                                   const at::Tensor& like) {
  MISTRAL_EXT_CHECK(x.scalar_type() == like.scalar_type(),
                    "{}: {} must have {}'s dtype {}, got {}",
                    op,
                    argument,
                    like_argument,
                    c10::toString(like.scalar_type()),
                    c10::toString(x.scalar_type()));
  check_device(op, argument, x, like_argument, like);
}

// One shape, dtype and device.
inline void check_like(const char* op,
                       const char* argument,
                       const at::Tensor& x,
                       const char* like_argument,
                       const at::Tensor& like) {
  MISTRAL_EXT_CHECK(x.sym_sizes() == like.sym_sizes(),
                    "{}: {} must have {}'s shape {}, got {}",
                    op,
                    argument,
                    like_argument,
                    c10::str(like.sym_sizes()),
                    c10::str(x.sym_sizes()));
  check_dtype_and_device(op, argument, x, like_argument, like);
}

}  // namespace mistral_ext::ops
