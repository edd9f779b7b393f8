#pragma once

#include <filesystem>
#include <string>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext::tokenizers {

// What tokenizer_config.json says beside tokenizer.json that changes ids.
struct TokenizerSettings {
  std::string label;  // what messages begin with
  // add_prefix_space is false, and the class of tokenizers named there does as it says.
  bool refuses_prefix_space = false;
  ConfigMap added_tokens;  // added_tokens_decoder: ids, and a token as tokenizer.json has it
};

// Throws ValueError naming the file and the field.
TokenizerSettings read_tokenizer_settings(const std::filesystem::path& folder);

// Puts the tokens that only the settings have behind the added_tokens of tokenizer.json.
// Throws ValueError where the two contradict each other: one token with two ids, or a pipeline that
// puts a space before a text where the settings say that there is none.
void apply_settings(const TokenizerSettings& settings, ConfigMap& fields, const std::string& label);

}  // namespace mistral_ext::tokenizers
