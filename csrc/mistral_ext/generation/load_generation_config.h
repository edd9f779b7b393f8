#pragma once

#include <filesystem>

#include "mistral_ext/generation/beam_search_config.h"
#include "mistral_ext/generation/generation_config_from_map.h"

namespace mistral_ext::generation {

// The generation configuration of a model's folder: generation_config.json, else the ends and the
// padding that config.json or a prepacked checkpoint names, else none of them. In Mistral's own
// format, whose params.json names no end, it is the tokenizer's, where the folder has one. Throws
// ValueError naming the file and the field.
//   beams: gets what generation_config.json says of beam search, as in generation_config_from_map.
GenerationConfig load_generation_config(const std::filesystem::path& folder,
                                        BeamSearchConfig* beams = nullptr);

}  // namespace mistral_ext::generation
