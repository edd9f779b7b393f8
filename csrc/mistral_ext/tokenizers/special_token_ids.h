#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/added_tokens.h"
#include "mistral_ext/tokenizers/vocabulary.h"

namespace mistral_ext::tokenizers {

// How a text begins and ends: by the token's content, or by its id.
struct SpecialTokenNames {
  struct Name {
    std::optional<std::string> content;
    std::optional<int64_t> id;
  };
  Name bos;
  Name eos;
};

// What the files beside tokenizer.json say, for each of the two the first that names it:
// tokenizer_config.json, special_tokens_map.json, generation_config.json (of several ids the
// first). A null there says that there is none. Throws ValueError naming the file and the field.
SpecialTokenNames read_special_token_names(const std::filesystem::path& folder);

// The ids that the post-processor of tokenizer.json puts around a text: TemplateProcessing, with
// ByteLevel beside it, which changes no ids. Throws ValueError for other ones.
struct AroundText {
  std::vector<int64_t> before;
  std::vector<int64_t> after;
};
AroundText read_post_processor(const ConfigMap& fields, const std::string& label);

}  // namespace mistral_ext::tokenizers
