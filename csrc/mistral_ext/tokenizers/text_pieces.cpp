#include "mistral_ext/tokenizers/text_pieces.h"

#include <algorithm>
#include <utility>

#include "mistral_ext/core/check.h"

namespace mistral_ext::tokenizers {

void TextPieces::check_size(size_t bytes) const {
  MISTRAL_EXT_CHECK(
      bytes <= most_bytes,
      "encode: normalizer and pre_tokenizer must make at most {} bytes of this text, got {}",
      most_bytes,
      bytes);
}

void replace_matches(TextPieces& pieces,
                     const std::vector<TextSpan>& matches,
                     std::string_view content) {
  if (matches.empty()) return;
  pieces.check_size(pieces.text.size() + matches.size() * content.size());
  std::string text;
  text.reserve(pieces.text.size());
  size_t start_bytes = 0;
  size_t at = 0;
  const auto keep = [&](size_t end) {
    text.append(pieces.text, at, end - at);
    if (at < pieces.start_bytes) start_bytes += std::min(end, pieces.start_bytes) - at;
    at = end;
  };
  for (const auto& match : matches) {
    keep(match.begin);
    text += content;
    // What comes in stands for the last character that goes out, or for the one before.
    if (match.end <= pieces.start_bytes) start_bytes += content.size();
    at = match.end;
  }
  keep(pieces.text.size());
  pieces.text = std::move(text);
  pieces.start_bytes = start_bytes;
}

}  // namespace mistral_ext::tokenizers
