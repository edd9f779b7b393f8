// A regular expression out of a tokenizer's file, and a text. The first byte says whose syntax it
// is; a NUL ends the pattern.
#include "fuzz.h"
#include "mistral_ext/tokenizers/regex.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto syntax =
      data[0] % 2 == 0 ? tokenizers::RegexSyntax::kOniguruma : tokenizers::RegexSyntax::kRust;
  const auto input = fuzz::as_text(data + 1, size - 1);
  const auto nul = input.find('\0');
  const auto pattern = input.substr(0, nul);
  const auto text = nul == std::string_view::npos ? std::string_view() : input.substr(nul + 1);
  const auto regex = fuzz::parse_within(
      {fuzz::kFixed, 256}, size, [&] { return tokenizers::Regex(pattern, syntax, "fuzz"); });
  if (!regex) return 0;
  const auto spans =
      fuzz::parse_within({fuzz::kFixed, 256}, size, [&] { return regex->find_all(text); });
  if (!spans) return 0;
  const auto is_boundary = [&](size_t at) {
    return at == text.size() || (static_cast<uint8_t>(text[at]) & 0xC0) != 0x80;
  };
  size_t end = 0;
  for (const auto& span : *spans) {
    fuzz::require(end <= span.begin && span.begin <= span.end && span.end <= text.size(),
                  "matches must follow each other inside the text");
    fuzz::require(is_boundary(span.begin) && is_boundary(span.end),
                  "matches must begin and end between characters");
    end = span.end;
  }
  return 0;
}
