#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/normalizer.h"
#include "mistral_ext/tokenizers/regex.h"
#include "mistral_ext/tokenizers/token_finder.h"
#include "mistral_ext/tokenizers/vocabulary.h"

namespace mistral_ext::tokenizers {

// A token that is found in the text before the model sees it.
struct AddedToken {
  int64_t id = 0;
  std::string content;     // as the file writes it
  std::string normalized;  // as it is looked for in normalised text; else the content
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool in_normalized = true;
  bool special = false;
};

// The added_tokens of tokenizer.json.
class AddedTokens {
 public:
  // Throws ValueError, its message beginning with `label`, where an entry is none, repeats, or has
  // another id than the vocabulary gives it, or than the next one that is free.
  AddedTokens(const ConfigMap& fields,
              const Vocabulary& vocabulary,
              const Normalizer& normalizer,
              const std::string& label);

  struct Part {
    TextSpan span;
    int64_t id;  // -1 for what lies between tokens
  };
  // The whole text in order. normalized: which of the tokens are looked for.
  // special: whether special ones are.
  std::vector<Part> split(std::string_view text, bool normalized, bool special) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(int64_t id) const;
  const AddedToken* find(std::string_view content) const;
  bool is_special(std::string_view content) const;
  // Above the largest id; 0 where there are none.
  int64_t end_id() const { return end_id_; }

 private:
  void add(AddedToken token, const Vocabulary& vocabulary, const std::string& label);

  std::vector<AddedToken> tokens_;
  std::unordered_map<int64_t, size_t> by_id_;
  std::map<std::string, size_t, std::less<>> by_content_;
  TokenFinder exact_;       // over the text as it is; values are places in tokens_
  TokenFinder normalized_;  // over normalised text
  Regex word_at_end_;
  Regex word_at_begin_;
  int64_t end_id_ = 0;
  int64_t next_id_ = 0;
};

}  // namespace mistral_ext::tokenizers
