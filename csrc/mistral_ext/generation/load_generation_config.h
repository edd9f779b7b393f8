#pragma once

#include <filesystem>

#include "mistral_ext/generation/generation_config_from_map.h"

namespace mistral_ext::generation {

// The generation configuration of a model's folder: generation_config.json, else the ends and the
// padding that config.json or a prepacked checkpoint names, else (Mistral's own format) none of
// them. Throws ValueError naming the file and the field.
GenerationConfig load_generation_config(const std::filesystem::path& folder);

}  // namespace mistral_ext::generation
