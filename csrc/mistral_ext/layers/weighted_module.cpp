#include "mistral_ext/layers/weighted_module.h"

#include <ATen/ops/empty.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::layers {

WeightedModule::WeightedModule(const char* type_name, at::IntArrayRef weight_shape)
    : torch::nn::Module(type_name) {
  register_parameter("weight",
                     at::empty(weight_shape, at::TensorOptions().device(at::kMeta)),
                     /*requires_grad=*/false);
}

void WeightedModule::set_weight(const at::Tensor& weight) {
  auto& slot = parameters_[0].value();
  MISTRAL_EXT_CHECK(weight.sizes() == slot.sizes(),
                    "{}: weight must have shape {}, got {}",
                    name(),
                    c10::str(slot.sizes()),
                    c10::str(weight.sizes()));
  slot = weight;
}

}  // namespace mistral_ext::layers
