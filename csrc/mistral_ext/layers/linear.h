#pragma once

#include "mistral_ext/layers/weighted_module.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::layers {

// y = x weight^T; weight: [out_features, in_features], no bias.
class Linear : public WeightedModule {
 public:
  //   shard: of outputs (column parallel) or of inputs (row parallel: what forward returns is then
  //   a
  //     part of the sum); the sizes are the whole weight's.
  Linear(int64_t in_features, int64_t out_features, const parallel::ShardSpec& shard = {})
      : WeightedModule("Linear", {out_features, in_features}, shard) {}

  // x: [..., in_features] -> [..., out_features]
  at::Tensor forward(const at::Tensor& x) const { return ops::linear(x, weight()); }
};

}  // namespace mistral_ext::layers
