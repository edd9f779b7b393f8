#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/regex.h"

namespace mistral_ext::tokenizers {

// A text being encoded, between added tokens: normalised, then cut into words.
//
// Of where a character comes from one thing is known, whether it is the beginning of the whole
// text: Metaspace asks.
struct TextPieces {
  struct Word {
    size_t begin;
    size_t end;
    // The word was cut where the whole text begins.
    bool at_start;
  };

  std::string text;
  std::vector<Word> words;  // in order; together the text, but for what was left out
  // So many bytes at the beginning of `text` stand for the first character of the whole text.
  size_t start_bytes = 0;
  // More than a file's settings may make of the text; they could double it at each step.
  size_t most_bytes = 0;

  explicit TextPieces(std::string_view from) : text(from), most_bytes(8 * from.size() + 64) {}

  // Throws ValueError for a text of so many bytes where that is too long.
  void check_size(size_t bytes) const;

  std::string_view of(const Word& word) const {
    return std::string_view(text).substr(word.begin, word.end - word.begin);
  }
};

// Puts `content` in place of each match. matches: in order, none inside another.
void replace_matches(TextPieces& pieces,
                     const std::vector<TextSpan>& matches,
                     std::string_view content);

}  // namespace mistral_ext::tokenizers
