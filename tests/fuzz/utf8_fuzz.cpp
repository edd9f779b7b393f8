// Bytes as characters: the check of a text, and characters put together from pieces. The first byte
// of the input says where the pieces end.
#include "fuzz.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/tokenizers/utf8.h"

using namespace mistral_ext;

namespace {

// By the library that reads JSON, which has a check of its own.
bool is_utf8(const std::string& text) {
  try {
    io::to_json({{"text", {text}}}, "fuzz");
  } catch (const c10::ValueError&) {
    return false;
  }
  return true;
}

std::string put_together(std::string_view text,
                         size_t piece,
                         tokenizers::CharacterBuffer::Replace replace) {
  tokenizers::CharacterBuffer buffer(replace);
  std::string result;
  for (size_t at = 0; at < text.size(); at += piece) {
    buffer.put(text.substr(at, piece), result);
    fuzz::require(is_utf8(result), "whole characters must come out");
  }
  buffer.finish(result);
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Replace = tokenizers::CharacterBuffer::Replace;
  if (size == 0 || size > 1024) return 0;
  const std::string text(fuzz::as_text(data + 1, size - 1));
  const auto invalid = tokenizers::first_invalid_utf8(text);
  fuzz::require((invalid == text.size()) == is_utf8(text), "UTF-8 is UTF-8");
  fuzz::require(is_utf8(text.substr(0, invalid)), "what comes before is UTF-8");
  for (const auto replace : {Replace::kBeginning, Replace::kByte}) {
    const auto whole = put_together(text, size, replace);
    fuzz::require(is_utf8(whole), "characters must come out");
    fuzz::require(put_together(text, data[0] % 7 + 1, replace) == whole,
                  "characters must not depend on pieces");
    fuzz::require(whole.substr(0, invalid) == text.substr(0, invalid),
                  "characters must come out as they went in");
    if (invalid == text.size()) fuzz::require(whole == text, "nothing is added to characters");
  }
  return 0;
}
