#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/regex_syntax.h"

namespace mistral_ext::tokenizers {

// Bytes [begin, end) of a text.
struct TextSpan {
  size_t begin;
  size_t end;

  bool operator==(const TextSpan&) const = default;
};

// A regular expression out of a model's file, over UTF-8 and Unicode's properties. Immutable: any
// number of threads may search with it at once.
class Regex {
 public:
  // Throws ValueError, its message beginning with `label`, for a pattern that is none, or has parts
  // that translate_regex refuses.
  Regex(std::string_view pattern, RegexSyntax syntax, const std::string& label);

  // All matches from left to right, none inside another. An empty one right behind the one before
  // is left out. text: UTF-8, else ValueError. Time is bounded by a generous multiple of the text's
  // length; a pattern and a text that ask for more are a ValueError, never a long wait.
  std::vector<TextSpan> find_all(std::string_view text) const;

 private:
  class Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace mistral_ext::tokenizers
