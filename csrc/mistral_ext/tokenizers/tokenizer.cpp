#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::tokenizers {

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  const auto stream = text_stream(skip_special_tokens);
  std::string text;
  for (const auto id : ids) text += stream->put(id);
  text += stream->finish();
  return text;
}

}  // namespace mistral_ext::tokenizers
