// A SentencePiece model.
#include "fuzz.h"
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "tokenizer_promises.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tokenizer = fuzz::parse_within({fuzz::kFixed, 512}, size, [&] {
    return tokenizers::parse_sentencepiece(fuzz::as_text(data, size), "fuzz");
  });
  if (tokenizer) fuzz::require_promises(**tokenizer, data, size);
  return 0;
}
