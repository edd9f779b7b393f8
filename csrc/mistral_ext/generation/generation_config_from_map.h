#pragma once

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/generation/beam_search_config.h"
#include "mistral_ext/generation/generation_config.h"

namespace mistral_ext::generation {

// A Hugging Face generation configuration, with Hugging Face's defaults: an absent top_k is 50, an
// absent pad_token_id the first of the ends. No length is made up: where the file has neither
// max_length nor max_new_tokens, set one. Throws ValueError naming a field of another kind than it
// must be, and one that asks for what generate does not do (stop_strings, guidance_scale, ...).
// Fields that are not about tokens are passed over.
//   beams: gets num_beams (1 where it is absent), length_penalty and early_stopping, for
//   beam_search
//     with more than one beam. Without it, num_beams must be 1: generate has no beams.
GenerationConfig generation_config_from_map(const ConfigMap& map,
                                            BeamSearchConfig* beams = nullptr);

}  // namespace mistral_ext::generation
