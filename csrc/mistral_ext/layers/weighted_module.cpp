#include "mistral_ext/layers/weighted_module.h"

#include <ATen/ops/empty.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::layers {

WeightedModule::WeightedModule(const char* type_name, at::IntArrayRef weight_shape)
    : torch::nn::Module(type_name), shape_(weight_shape.vec()) {
  register_parameter("weight",
                     at::empty(weight_shape, at::TensorOptions().device(at::kMeta)),
                     /*requires_grad=*/false);
}

void WeightedModule::set_weight(const at::Tensor& weight) {
  MISTRAL_EXT_CHECK(weight.sizes() == shape(),
                    "{}: weight must have shape {}, got {}",
                    name(),
                    c10::str(shape()),
                    c10::str(weight.sizes()));
  parameters_[0].value() = weight;
}

}  // namespace mistral_ext::layers
