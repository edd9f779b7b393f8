#pragma once

#include <filesystem>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

// Writes config.json and model.safetensors into the folder, which is made where there is none, for
// load_pretrained and for Hugging Face's from_pretrained. A tied head is left out. Both files
// appear whole or not at all: where something fails, a full disk too, the folder keeps those it
// had. A model may be saved over the files it is mapped from.
//   more: further fields of config.json, such as eos_token_id; they give way to the model's own.
// Throws ValueError that names the file.
void save_pretrained(const MistralForCausalLM& model,
                     const std::filesystem::path& folder,
                     const ConfigMap& more = {});

}  // namespace mistral_ext::models
