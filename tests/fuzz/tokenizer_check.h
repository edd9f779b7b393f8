#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "mistral_ext/tokenizers/tokenizer.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::fuzz {

// Decoding says the same at once and piece by piece, and it is UTF-8.
inline void require_decodes(const tokenizers::Tokenizer& tokenizer,
                            const std::vector<int64_t>& ids,
                            bool skip_special_tokens) {
  const auto text = tokenizer.decode(ids, skip_special_tokens);
  require(tokenizers::first_invalid_utf8(text) == text.size(), "decoded text must be UTF-8");
  const auto stream = tokenizer.text_stream(skip_special_tokens);
  std::string pieces;
  for (const auto id : ids) {
    pieces += stream->put(id);
    require(tokenizers::first_invalid_utf8(pieces) == pieces.size(), "a piece must be whole");
  }
  pieces += stream->finish();
  require(pieces == text, "decoding must not depend on pieces");
}

// What every tokenizer promises, whatever file it is of.
inline void require_tokenizes(const tokenizers::Tokenizer& tokenizer, std::string_view text) {
  const auto size = tokenizer.vocab_size();
  for (const bool specials : {false, true}) {
    const auto ids = parse_within({kFixed, 1024}, text.size(), [&] {
      return tokenizer.encode(text,
                              {.add_special_tokens = specials, .parse_special_tokens = specials});
    });
    if (!ids) continue;
    for (const auto id : *ids) {
      require(id >= 0 && id < size, "an id must be below the vocabulary's size");
      tokenizer.id_to_token(id);
    }
    require_decodes(tokenizer, *ids, false);
    require_decodes(tokenizer, *ids, true);
  }
  // Any ids at all.
  std::vector<int64_t> ids;
  for (const char c : text.substr(0, 64)) {
    const auto id = static_cast<uint8_t>(c) * size / 256;
    try {
      tokenizer.id_to_token(id);
      ids.push_back(id);
    } catch (const c10::ValueError&) {
    }
  }
  require_decodes(tokenizer, ids, false);
  require_decodes(tokenizer, ids, true);
}

}  // namespace mistral_ext::fuzz
