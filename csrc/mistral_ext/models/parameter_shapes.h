#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mistral_ext/core/config.h"

namespace mistral_ext::models {

using ParameterShape = std::pair<std::string, std::vector<int64_t>>;

// The parameters of MistralForCausalLM with such a configuration, by Hugging Face's names, in the
// order in which a pass uses them; the head last.
std::vector<ParameterShape> parameter_shapes(const MistralConfig& config);

}  // namespace mistral_ext::models
