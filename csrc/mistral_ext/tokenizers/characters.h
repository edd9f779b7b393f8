#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mistral_ext::tokenizers {

// Of text that is known to be UTF-8.

// Bytes of the character that begins with this one.
inline size_t character_length(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Bytes of White_Space at the beginning, at the end.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

}  // namespace mistral_ext::tokenizers
