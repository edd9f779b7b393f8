#pragma once

#include <filesystem>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/generation/generation_config.h"

namespace mistral_ext::generation {

// A Hugging Face generation configuration, with Hugging Face's defaults: an absent top_k is 50, an
// absent pad_token_id the first of the ends. No length is made up: where the file has neither
// max_length nor max_new_tokens, set one. Throws ValueError naming a field of another kind than it
// must be, and one that asks for what generate does not do (num_beams, stop_strings, ...). Fields
// that are not about tokens are passed over.
GenerationConfig generation_config_from_map(const ConfigMap& map);

// That of a model's folder: generation_config.json, else the ends and the padding that config.json
// or a prepacked checkpoint names, else (Mistral's own format) none of them. Throws ValueError
// naming the file and the field.
GenerationConfig load_generation_config(const std::filesystem::path& folder);

}  // namespace mistral_ext::generation
