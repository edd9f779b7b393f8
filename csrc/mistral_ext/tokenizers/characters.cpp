#include "mistral_ext/tokenizers/characters.h"

namespace mistral_ext::tokenizers {
namespace {

// Unicode's White_Space, which has not changed since 6.3.
bool is_space(uint32_t point) {
  return (point >= 0x09 && point <= 0x0D) || point == 0x20 || point == 0x85 || point == 0xA0 ||
         point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 ||
         point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

uint32_t code_point(std::string_view character) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(character[i]); };
  const auto rest = [&](size_t i) { return byte(i) & 0x3FU; };
  switch (character.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1FU) << 6 | rest(1);
    case 3:
      return (byte(0) & 0x0FU) << 12 | rest(1) << 6 | rest(2);
    default:
      return (byte(0) & 0x07U) << 18 | rest(1) << 12 | rest(2) << 6 | rest(3);
  }
}

}  // namespace

size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const auto length = character_length(text[at]);
    if (!is_space(code_point(text.substr(at, length)))) break;
    at += length;
  }
  return at;
}

size_t trailing_space(std::string_view text) {
  auto at = text.size();
  while (at > 0) {
    auto begin = at - 1;
    while ((static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!is_space(code_point(text.substr(begin, at - begin)))) break;
    at = begin;
  }
  return text.size() - at;
}

}  // namespace mistral_ext::tokenizers
