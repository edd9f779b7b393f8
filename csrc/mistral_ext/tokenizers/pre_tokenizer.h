#pragma once

#include <string>
#include <variant>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/text_pattern.h"
#include "mistral_ext/tokenizers/text_pieces.h"

namespace mistral_ext::tokenizers {

// What to do with a match that a text is cut at.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// When Metaspace puts its character before a word that does not begin with it.
enum class PrependScheme { kFirst, kNever, kAlways };

PrependScheme read_prepend_scheme(const ConfigMap& metaspace, const std::string& label);
// Metaspace's character, in UTF-8.
std::string read_replacement(const ConfigMap& metaspace, const std::string& label);

// How tokenizer.json cuts a text into the words that the model sees: ByteLevel, Split, Metaspace,
// Digits, Whitespace, WhitespaceSplit.
class PreTokenizer {
 public:
  // Throws ValueError, its message beginning with `label`, for a kind or a setting that is not
  // read.
  PreTokenizer(const ConfigMap& fields, const std::string& label);

  // Throws ValueError where the text becomes too long.
  void apply(TextPieces& pieces) const;

 private:
  struct Split {
    TextPattern pattern;
    SplitBehavior behavior;
    bool invert;
  };
  struct Bytes {};  // each byte becomes the character of ByteLevel's alphabet that stands for it
  struct PrefixSpace {};
  struct Metaspace {
    std::string replacement;
    PrependScheme scheme;
  };

  std::vector<std::variant<Split, Bytes, PrefixSpace, Metaspace>> steps_;
};

}  // namespace mistral_ext::tokenizers
