#pragma once

#include <tuple>

#include "mistral_ext/layers/weighted_module.h"
#include "mistral_ext/ops/add_rms_norm.h"
#include "mistral_ext/ops/rms_norm.h"

namespace mistral_ext::layers {

// weight: [hidden_size]
class RMSNorm : public WeightedModule {
 public:
  RMSNorm(int64_t hidden_size, double eps) : WeightedModule("RMSNorm", {hidden_size}), eps_(eps) {}

  // x: [..., hidden_size]
  at::Tensor forward(const at::Tensor& x) const { return ops::rms_norm(x, weight(), eps_); }

  // (norm of x + residual, x + residual)
  std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x,
                                             const at::Tensor& residual) const {
    return ops::add_rms_norm(x, residual, weight(), eps_);
  }

 private:
  double eps_;
};

}  // namespace mistral_ext::layers
