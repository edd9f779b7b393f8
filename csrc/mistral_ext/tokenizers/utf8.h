#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// Where the first byte lies that is no part of a character in UTF-8; text.size() where all are.
size_t first_invalid_utf8(std::string_view text);

// Throws ValueError naming that byte.
void check_utf8(std::string_view text, std::string_view operation);

// Puts bytes that come in pieces together to characters. Bytes that are no character become U+FFFD:
// one for each longest beginning of a character, as in Python and Rust, or one for each byte, as in
// SentencePiece. For one thread.
class CharacterBuffer {
 public:
  enum class Replace { kBeginning, kByte };

  explicit CharacterBuffer(Replace replace) : replace_(replace) {}

  // Appends to `text` the characters that `bytes` complete.
  void put(std::string_view bytes, std::string& text);
  // Appends what stands for an unfinished character.
  void finish(std::string& text);

 private:
  void put(unsigned char byte, std::string& text);

  Replace replace_;
  std::string begun_;         // the first bytes of a character
  int missing_ = 0;           // how many bytes it still lacks
  unsigned char low_ = 0x80;  // what the next of them lies between
  unsigned char high_ = 0xBF;
};

}  // namespace mistral_ext::tokenizers
