#pragma once

#include <string>
#include <variant>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/text_pattern.h"
#include "mistral_ext/tokenizers/text_pieces.h"

namespace mistral_ext::tokenizers {

// What tokenizer.json does to a text before it looks for words: Prepend, Replace, Strip. The forms
// of Unicode (NFC and the like) and changes of case are refused: they need tables that PCRE2 keeps
// to itself.
class Normalizer {
 public:
  // Throws ValueError, its message beginning with `label`, for a kind or a setting that is not
  // read.
  Normalizer(const ConfigMap& fields, const std::string& label);

  // pieces: a text without words yet, not empty. Throws ValueError where it becomes too long.
  void apply(TextPieces& pieces) const;
  // The same for a text alone.
  std::string apply(std::string_view text) const;

 private:
  struct Prepend {
    std::string text;
  };
  struct Replace {
    TextPattern pattern;
    std::string content;
  };
  struct Strip {
    bool left;
    bool right;
  };

  std::vector<std::variant<Prepend, Replace, Strip>> steps_;
};

}  // namespace mistral_ext::tokenizers
