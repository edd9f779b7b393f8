#include "mistral_ext/tokenizers/utf8.h"

#include "mistral_ext/core/check.h"

namespace mistral_ext::tokenizers {
namespace {

// What the first byte of a character says about the rest of it: Unicode's table 3-7, which leaves
// out overlong forms, surrogates and what lies beyond U+10FFFF.
struct Lead {
  int trailing;  // -1 where the byte begins no character
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
};

Lead lead(unsigned char byte) {
  if (byte < 0x80) return {0};
  if (byte < 0xC2) return {-1};
  if (byte < 0xE0) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1};
}

}  // namespace

size_t first_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto first = lead(static_cast<unsigned char>(text[i]));
    if (first.trailing < 0 || text.size() - i <= static_cast<size_t>(first.trailing)) return i;
    for (int k = 1; k <= first.trailing; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + k]);
      const bool fits =
          k == 1 ? byte >= first.low && byte <= first.high : byte >= 0x80 && byte <= 0xBF;
      if (!fits) return i;
    }
    i += 1 + first.trailing;
  }
  return i;
}

void check_utf8(std::string_view text, std::string_view operation) {
  const auto invalid = first_invalid_utf8(text);
  MISTRAL_EXT_CHECK(invalid == text.size(),
                    "{}: text must be UTF-8, got the byte 0x{:02X} at {} that begins no character",
                    operation,
                    static_cast<unsigned char>(text[invalid]),
                    invalid);
}

void CharacterBuffer::put(std::string_view bytes, std::string& text) {
  for (const char byte : bytes) put(static_cast<unsigned char>(byte), text);
}

void CharacterBuffer::put(unsigned char byte, std::string& text) {
  if (missing_ > 0) {
    if (byte >= low_ && byte <= high_) {
      begun_ += static_cast<char>(byte);
      low_ = 0x80;
      high_ = 0xBF;
      if (--missing_ == 0) {
        text += begun_;
        begun_.clear();
      }
      return;
    }
    finish(text);
  }
  const auto first = lead(byte);
  if (first.trailing == 0) {
    text += static_cast<char>(byte);
  } else if (first.trailing < 0) {
    text += kReplacementCharacter;
  } else {
    begun_ = static_cast<char>(byte);
    missing_ = first.trailing;
    low_ = first.low;
    high_ = first.high;
  }
}

void CharacterBuffer::finish(std::string& text) {
  if (missing_ == 0) return;
  const auto replacements = replace_ == Replace::kByte ? begun_.size() : 1;
  for (size_t i = 0; i < replacements; ++i) text += kReplacementCharacter;
  begun_.clear();
  missing_ = 0;
}

}  // namespace mistral_ext::tokenizers
