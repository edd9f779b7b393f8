#pragma once

// What the CPU kernels of the operators share: their tensors, and the work a thread is worth.

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "mistral_ext/kernels/cpu/types.h"
#include "mistral_ext/ops/dispatch.h"
#include "mistral_ext/ops/rows.h"

namespace mistral_ext::ops {

// Elements a thread takes at least: below this, waking another thread costs more than it saves.
inline constexpr int64_t kGrain = 32 * 1024;

// The same in rows of `width` elements.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width));
}

// A contiguous tensor of these sizes with x's dtype. Not through the dispatcher: a decode step
// makes hundreds of tensors, and each would pay for it.
inline at::Tensor empty_cpu(at::IntArrayRef sizes, const at::Tensor& x) {
  return at::detail::empty_cpu(sizes, x.scalar_type());
}

}  // namespace mistral_ext::ops
