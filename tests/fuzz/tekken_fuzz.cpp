// Mistral's tekken.json, and after a NUL a text for it. The 256 bytes that every vocabulary begins
// with are put in where "vocab":[ stands, so that inputs stay short.
#include <fmt/format.h>

#include "mistral_ext/tokenizers/tekken.h"
#include "tokenizer_check.h"

using namespace mistral_ext;

namespace {

constexpr std::string_view kVocab = "\"vocab\":[";

std::string bytes_of_vocab() {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string entries;
  for (int byte = 0; byte < 256; ++byte) {
    entries += fmt::format("{}{{\"rank\":{},\"token_bytes\":\"{}{}==\"}}",
                           byte == 0 ? "" : ",",
                           byte,
                           kDigits[byte >> 2],
                           kDigits[byte << 4 & 63]);
  }
  return entries;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string bytes = bytes_of_vocab();
  const auto input = fuzz::as_text(data, size);
  const auto nul = input.find('\0');
  std::string file(input.substr(0, nul));
  if (const auto at = file.find(kVocab); at != std::string::npos) {
    file.insert(at + kVocab.size(), bytes);
  }
  // A file of some bytes may ask for 16,384 special tokens, with names made up.
  const auto tokenizer = fuzz::parse_within({int64_t{16} << 20, 256}, file.size(), [&] {
    return tokenizers::parse_tekken(file, "fuzz");
  });
  if (!tokenizer) return 0;
  fuzz::require_tokenizes(**tokenizer,
                          nul == std::string_view::npos ? input : input.substr(nul + 1));
  return 0;
}
