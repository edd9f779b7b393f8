#include "mistral_ext/layers/weighted_module.h"

#include <ATen/ops/empty.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::layers {

WeightedModule::WeightedModule(const char* type_name,
                               at::IntArrayRef weight_shape,
                               const parallel::ShardSpec& shard)
    : torch::nn::Module(type_name), shard_(shard), shape_(shard.part_of(weight_shape)) {
  weight_ = register_parameter("weight",
                               at::empty(shape_, at::TensorOptions().device(at::kMeta)),
                               /*requires_grad=*/false);
}

void WeightedModule::check_shape(const at::Tensor& weight) const {
  MISTRAL_EXT_CHECK(weight.sizes() == shape(),
                    "{}: weight must have shape {}, got {}",
                    name(),
                    c10::str(shape()),
                    c10::str(weight.sizes()));
}

void WeightedModule::set_weight(const at::Tensor& weight) {
  check_shape(weight);
  weight_ = weight;
  parameters_.clear();
  parameters_.insert("weight", weight);
}

void WeightedModule::tie_weight(const at::Tensor& weight) {
  check_shape(weight);
  weight_ = weight;
  parameters_.clear();
}

}  // namespace mistral_ext::layers
