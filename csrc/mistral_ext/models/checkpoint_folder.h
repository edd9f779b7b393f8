#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "mistral_ext/core/config.h"
#include "mistral_ext/io/tensor_source.h"

namespace mistral_ext::models {

// A folder with a model in it: its configuration, and its tensors, none of them touched yet.
struct CheckpointFolder {
  std::string label;  // "load: <folder>", what messages begin with
  MistralConfig config;
  ConfigMap extra_config;               // see MistralForCausalLM::extra_config
  std::optional<at::ScalarType> dtype;  // where the configuration says one
  std::unique_ptr<io::TensorSource> tensors;
  // Mistral's own names and rotary order: see mistral_format.h.
  bool is_mistral_format = false;
};

// Reads config.json, or Mistral's params.json where there is none, and opens model.safetensors,
// else the files of model.safetensors.index.json, else Mistral's consolidated.safetensors, else the
// files of consolidated.safetensors.index.json. Throws ValueError naming the file and the field.
CheckpointFolder open_checkpoint(const std::filesystem::path& folder);

}  // namespace mistral_ext::models
