#pragma once

#include <optional>

#include "mistral_ext/layers/packing.h"
#include "mistral_ext/models/inputs.h"

namespace mistral_ext::models {

// How to leave out the padding of these inputs, which have been checked, so that only attention
// meets it. Nothing where gradients are recorded, where rows are padded elsewhere than on the left
// or with different tokens, or where there is too little padding to pay. Waits for the device where
// there is a mask for several tokens.
std::optional<layers::Packing> plan_packing(const ModelInputs& inputs);

}  // namespace mistral_ext::models
