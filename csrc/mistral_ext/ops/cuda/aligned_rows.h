#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mistral_ext::ops {

// x, of four dimensions, itself or a copy: the elements of a row side by side, every row beginning
// on 16 bytes.
inline at::Tensor with_aligned_rows(const at::Tensor& x) {
  const int64_t unit = 16 / x.element_size();
  bool fits = x.stride(3) == 1 && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
  for (int64_t d = 0; d < 3; ++d) fits = fits && (x.stride(d) % unit == 0 || x.size(d) == 1);
  return fits ? x : x.clone(at::MemoryFormat::Contiguous);
}

}  // namespace mistral_ext::ops
