#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/vocabulary.h"

namespace mistral_ext::tokenizers {

// "ab c" and 2 for the merge of "ab" and " c"... the two parts without what a file has between
// them.
struct MergeText {
  std::string text;
  size_t left = 0;  // bytes of the first part

  std::string_view first() const { return std::string_view(text).substr(0, left); }
  std::string_view second() const { return std::string_view(text).substr(left); }
};

// What a tokenizer.json holds, before it is known whether it makes sense.
struct TokenizerJsonFile {
  ConfigMap fields;  // all but the two below
  Vocabulary vocabulary;
  std::vector<MergeText> merges;
  bool has_vocabulary = false;
  bool has_merges = false;
};

// Memory stays within a small multiple of the text. Throws ValueError, its message beginning with
// `label`, for what is no JSON, for a key that repeats, and where model.vocab or model.merges hold
// what they cannot.
TokenizerJsonFile read_tokenizer_json(std::string_view text, const std::string& label);

}  // namespace mistral_ext::tokenizers
