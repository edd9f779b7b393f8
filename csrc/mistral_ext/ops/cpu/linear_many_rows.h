#pragma once

#include <ATen/core/Tensor.h>

namespace mistral_ext::ops {

// x weight^T, checked, for a product whose arithmetic is the time: ATen's, but for the two cases
// where ATen leaves most of the processor idle.
//   float32 on x86 processors that are not Intel's: ATen's BLAS (MKL) stays on its AVX2 path there;
//     oneDNN, which ATen ships too, does not.
//   float16 where the processor has no float16 product: ATen takes a plain loop; here blocks of the
//     weight are widened to float32, and the sums rounded once.
at::Tensor linear_many_rows(const at::Tensor& x, const at::Tensor& weight);

// Whether ATen has a fast float16 product on this processor.
bool has_half_product();

}  // namespace mistral_ext::ops
