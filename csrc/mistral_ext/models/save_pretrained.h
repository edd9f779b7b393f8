#pragma once

#include <filesystem>
#include <optional>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

struct SaveOptions {
  // Bytes of tensors in one file; where the model has more, it goes into several with an index. One
  // tensor is never split. The default is Hugging Face's.
  int64_t max_shard_size = 50'000'000'000;
  // What generation_config.json is to hold. Absent: none is written, and one that is there stays.
  std::optional<ConfigMap> generation_config = std::nullopt;
};

// Writes config.json and model.safetensors into the folder, which is made where there is none, for
// load_pretrained and for Hugging Face's from_pretrained. A tied head is left out. A model may be
// saved over the files it is mapped from.
//
// Every file is written whole under a temporary name before the first gets its own, and old files
// go when all have theirs: where something fails, a full disk or a file that cannot be replaced,
// the folder keeps the files it had. A program that ends between two of the renamings leaves new
// weights with the old configuration, or (several files) a folder that is refused; never weights of
// two models. An index and files of several that are not of these weights are removed; other
// checkpoints in the folder, prepacked or in Mistral's own format, stay.
//   more: further fields of config.json; they give way to the model's own, and win over those that
//     the configuration had from which it was loaded (eos_token_id, ...), which are written again.
// Throws ValueError that names the file.
void save_pretrained(const MistralForCausalLM& model,
                     const std::filesystem::path& folder,
                     const ConfigMap& more = {},
                     const SaveOptions& options = {});

}  // namespace mistral_ext::models
