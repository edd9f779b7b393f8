#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <vector>

namespace mistral_ext::layers {

// A module whose only state is the parameter `weight`. Layers are made on the meta device, without
// storage; a loader or an owner of the weights puts the tensor in with set_weight, which keeps the
// handle itself: later in-place changes and storage swaps of that tensor are seen here.
class WeightedModule : public torch::nn::Module {
 public:
  WeightedModule(const char* type_name, at::IntArrayRef weight_shape);

  const at::Tensor& weight() const { return parameters_[0].value(); }

  // What the weight's shape has to be.
  at::IntArrayRef shape() const { return shape_; }

  // Throws ValueError where the shape differs.
  void set_weight(const at::Tensor& weight);

  // Lets go of the weight; set_weight must come before the next use.
  void clear_weight() { parameters_[0].value() = at::Tensor(); }

 private:
  std::vector<int64_t> shape_;
};

}  // namespace mistral_ext::layers
