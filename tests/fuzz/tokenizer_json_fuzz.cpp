// Hugging Face's tokenizer.json, and after a NUL a text for it.
#include "mistral_ext/tokenizers/tokenizer_json.h"
#include "tokenizer_check.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = fuzz::as_text(data, size);
  const auto nul = input.find('\0');
  const auto file = input.substr(0, nul);
  const auto tokenizer = fuzz::parse_within({int64_t{1} << 20, 256}, file.size(), [&] {
    return tokenizers::parse_tokenizer_json(file, "fuzz");
  });
  if (!tokenizer) return 0;
  fuzz::require_tokenizes(**tokenizer,
                          nul == std::string_view::npos ? input : input.substr(nul + 1));
  return 0;
}
