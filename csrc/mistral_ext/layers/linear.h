#pragma once

#include "mistral_ext/layers/weighted_module.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::layers {

// y = x weight^T; weight: [out_features, in_features], no bias.
class Linear : public WeightedModule {
 public:
  Linear(int64_t in_features, int64_t out_features)
      : WeightedModule("Linear", {out_features, in_features}) {}

  // x: [..., in_features] -> [..., out_features]
  at::Tensor forward(const at::Tensor& x) const { return ops::linear(x, weight()); }
};

}  // namespace mistral_ext::layers
