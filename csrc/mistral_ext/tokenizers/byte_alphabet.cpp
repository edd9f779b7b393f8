#include "mistral_ext/tokenizers/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace mistral_ext::tokenizers {
namespace {

struct Tables {
  std::array<uint16_t, 256> points{};
  std::array<int16_t, 0x144> bytes{};  // by code point; -1 where it stands for none
};

constexpr Tables make_tables() {
  Tables tables;
  for (auto& byte : tables.bytes) byte = -1;
  uint16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const auto point = visible ? static_cast<uint16_t>(byte) : next++;
    tables.points[byte] = point;
    tables.bytes[point] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// The byte of the character that begins at i, which is moved to its last byte; -1 for none.
int byte_at(std::string_view text, size_t& i) {
  auto point = static_cast<uint32_t>(static_cast<uint8_t>(text[i]));
  if (point >= 0x80) {
    const bool two = point >= 0xC2 && point < 0xE0 && i + 1 < text.size();
    if (!two) return -1;
    point = (point & 0x1F) << 6 | (static_cast<uint8_t>(text[++i]) & 0x3F);
  }
  return point < kTables.bytes.size() ? kTables.bytes[point] : -1;
}

}  // namespace

void bytes_to_alphabet(std::string_view bytes, std::string& text) {
  for (const char byte : bytes) {
    const auto point = kTables.points[static_cast<uint8_t>(byte)];
    if (point < 0x80) {
      text += static_cast<char>(point);
    } else {
      text += static_cast<char>(0xC0 | point >> 6);
      text += static_cast<char>(0x80 | (point & 0x3F));
    }
  }
}

void alphabet_to_bytes(std::string_view text, std::string& bytes) {
  const auto before = bytes.size();
  for (size_t i = 0; i < text.size(); ++i) {
    const int byte = byte_at(text, i);
    if (byte < 0) {
      bytes.resize(before);
      bytes += text;
      return;
    }
    bytes += static_cast<char>(byte);
  }
}

bool is_of_alphabet(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (byte_at(text, i) < 0) return false;
  }
  return true;
}

}  // namespace mistral_ext::tokenizers
