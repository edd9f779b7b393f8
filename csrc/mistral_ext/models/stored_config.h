#pragma once

#include "mistral_ext/core/config.h"

namespace mistral_ext::models {

// What the fields of a config.json, or of a prepacked checkpoint's copy of one, say.

// The configuration of the model that transformers' AutoModelForCausalLM makes of them. It is
// MistralConfig::from_map's, except that a mistral model that has `layer_types` is Ministral's
// class, which reads them; Mistral's own class, if one insists on it, does not.
MistralConfig config_of_stored(ConfigMap fields);

// The fields that mean nothing to the model but may to others, such as eos_token_id: those that
// MistralConfig does not hold in any form.
ConfigMap extra_fields(const ConfigMap& fields);

}  // namespace mistral_ext::models
