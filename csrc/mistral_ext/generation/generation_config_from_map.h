#pragma once

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/generation/generation_config.h"

namespace mistral_ext::generation {

// A Hugging Face generation configuration, with Hugging Face's defaults: an absent top_k is 50, an
// absent pad_token_id the first of the ends. No length is made up: where the file has neither
// max_length nor max_new_tokens, set one. Throws ValueError naming a field of another kind than it
// must be, and one that asks for what generate does not do (num_beams, stop_strings, ...). Fields
// that are not about tokens are passed over.
GenerationConfig generation_config_from_map(const ConfigMap& map);

}  // namespace mistral_ext::generation
