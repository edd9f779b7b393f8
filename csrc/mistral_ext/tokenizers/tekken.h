#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::tokenizers {

// Mistral's tekken.json. An id is a token's rank plus the number of special tokens, whose ids come
// first. A token whose bytes are no text is written with U+FFFD by id_to_token.
//
// Throws ValueError naming the file and what is wrong in it.
std::unique_ptr<Tokenizer> load_tekken(const std::filesystem::path& file);

// The same of a file's content; messages begin with `label`.
std::unique_ptr<Tokenizer> parse_tekken(std::string_view text, const std::string& label);

}  // namespace mistral_ext::tokenizers
