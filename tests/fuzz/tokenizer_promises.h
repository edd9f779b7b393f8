// What every tokenizer keeps, whatever file it came from.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "mistral_ext/tokenizers/tokenizer.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::fuzz {

// Encodes a text and decodes it, and then ids taken from the input, at once and one at a time.
inline void require_promises(const tokenizers::Tokenizer& tokenizer,
                             const uint8_t* data,
                             size_t size) {
  const std::string_view text = "ab ba  x\u00e9\u4e16\U0001F600</s>[INST] <unk>\n\t\x01 1234";
  std::vector<int64_t> ids;
  for (const bool parse : {false, true}) {
    try {
      const auto found = tokenizer.encode(text, {true, parse});
      ids.insert(ids.end(), found.begin(), found.end());
    } catch (const c10::ValueError&) {
      // A pattern may ask for too much work.
    }
  }
  for (const auto id : ids) {
    require(id >= 0 && id < tokenizer.vocab_size(), "ids must be in the vocabulary");
  }
  for (size_t i = 0; i < size && i < 64; ++i) {
    ids.push_back(data[size - 1 - i] * 7 % tokenizer.vocab_size());
  }
  for (const bool skip : {false, true}) {
    const auto whole = tokenizer.decode(ids, skip);
    require(tokenizers::first_invalid_utf8(whole) == whole.size(), "text must be UTF-8");
    const auto stream = tokenizer.text_stream(skip);
    std::string joined;
    for (const auto id : ids) {
      const auto piece = stream->put(id);
      require(tokenizers::first_invalid_utf8(piece) == piece.size(), "pieces must be UTF-8");
      joined += piece;
    }
    require(joined + stream->finish() == whole, "pieces must be the text");
  }
}

}  // namespace mistral_ext::fuzz
