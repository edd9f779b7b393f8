#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// What a tekken.json holds for text.
struct TekkenFile {
  std::string version;  // "v3"
  std::string pattern;  // what a text is split by
  // The bytes of the tokens, by rank; no more than default_vocab_size takes.
  std::vector<std::string> tokens;
  // By id, with <SPECIAL_20> and so on for those without a name.
  std::vector<std::string> special_tokens;
};

// Throws ValueError, its message beginning with `label`, that names what is wrong.
TekkenFile read_tekken_file(std::string_view text, const std::string& label);

}  // namespace mistral_ext::tokenizers
