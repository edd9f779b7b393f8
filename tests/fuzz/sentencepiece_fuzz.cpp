// SentencePiece's tokenizer.model. The first byte of the input is the length of a text for it,
// which comes next.
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "tokenizer_check.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || data[0] >= size) return 0;
  const auto input = fuzz::as_text(data + 1, size - 1);
  const auto text = input.substr(0, data[0]);
  const auto model = input.substr(data[0]);
  const auto tokenizer = fuzz::parse_within({int64_t{1} << 20, 256}, model.size(), [&] {
    return tokenizers::parse_sentencepiece(model, "fuzz");
  });
  if (tokenizer) fuzz::require_tokenizes(**tokenizer, text);
  return 0;
}
