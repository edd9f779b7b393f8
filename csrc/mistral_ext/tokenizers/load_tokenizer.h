#pragma once

#include <filesystem>
#include <memory>

#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::tokenizers {

// The tokenizer in a model's folder, out of the first of these files that is there: tokenizer.json,
// tekken.json, tokenizer.model, and Mistral's tokenizer.model.<version>, of several the last by
// name. Throws ValueError naming the file and what is wrong in it, or the folder where it has none.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder);

// The same; null where the folder has none of these files.
std::shared_ptr<const Tokenizer> find_tokenizer(const std::filesystem::path& folder);

}  // namespace mistral_ext::tokenizers
