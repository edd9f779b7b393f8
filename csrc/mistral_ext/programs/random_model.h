#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::programs {

// Names of known shapes.
std::vector<std::string> shape_names();

// A model of a known shape with random weights: as fast as a trained one. Throws ValueError where
// the CPU's memory does not hold it.
std::shared_ptr<models::MistralForCausalLM> random_model(const std::string& shape,
                                                         at::ScalarType dtype,
                                                         const at::Device& device);

}  // namespace mistral_ext::programs
