#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <vector>

#include "mistral_ext/parallel/shard_spec.h"

namespace mistral_ext::layers {

// A module whose only state is the parameter `weight`. Layers are made on the meta device, without
// storage; a loader or an owner of the weights puts the tensor in with set_weight, which keeps the
// handle itself: later in-place changes and storage swaps of that tensor are seen here.
class WeightedModule : public torch::nn::Module {
 public:
  //   weight_shape: of the whole weight; this rank's part of it is what the module holds.
  WeightedModule(const char* type_name,
                 at::IntArrayRef weight_shape,
                 const parallel::ShardSpec& shard = {});

  const at::Tensor& weight() const { return weight_; }

  // What the weight's shape has to be: of this rank's part.
  at::IntArrayRef shape() const { return shape_; }
  const parallel::ShardSpec& shard() const { return shard_; }

  // Throws ValueError where the shape differs.
  void set_weight(const at::Tensor& weight);

  // Uses a weight that is another module's parameter: it is none of this one's, so that an
  // optimizer that is given all parameters gets it once.
  void tie_weight(const at::Tensor& weight);

 private:
  void check_shape(const at::Tensor& weight) const;

  parallel::ShardSpec shard_;
  std::vector<int64_t> shape_;
  at::Tensor weight_;
};

}  // namespace mistral_ext::layers
