#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

namespace mistral_ext::ops {

// Whether a call must be recorded. When it need not, an autograd kernel goes straight to the
// operator: inference pays for no graph node. A forward-mode tangent counts, so that it reaches
// torch's error and is not dropped in silence.
template <typename... Tensors>
bool needs_autograd(const Tensors&... tensors) {
  const bool has_tangent = ((tensors.defined() && tensors._fw_grad(/*level=*/0).defined()) || ...);
  return has_tangent || (c10::GradMode::is_enabled() && (tensors.requires_grad() || ...));
}

}  // namespace mistral_ext::ops
