#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mistral_ext::tokenizers {

// SentencePiece's file format, written by hand, so that it can be wrong in any place.
inline std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

inline std::string number(int field, uint64_t value) { return varint(field << 3) + varint(value); }

inline std::string text(int field, std::string_view value) {
  return varint(field << 3 | 2) + varint(value.size()) + std::string(value);
}

inline std::string fixed32(int field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string bytes = varint(field << 3 | 5);
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(bits >> (8 * i) & 0xFF);
  return bytes;
}

enum PieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

inline std::string piece(std::string_view content, int type = kNormal, float score = 0) {
  return text(1, text(1, content) + fixed32(2, score) + number(3, type));
}

inline std::string specials() {
  return piece("<unk>", kUnknown) + piece("<s>", kControl) + piece("</s>", kControl);
}

inline std::string bytes_of_fallback() {
  std::string pieces;
  constexpr std::string_view digits = "0123456789ABCDEF";
  for (int i = 0; i < 256; ++i) {
    pieces += piece(std::string("<0x") + digits[i >> 4] + digits[i & 15] + ">", kByte);
  }
  return pieces;
}

constexpr int kBpe = 2;

inline std::string trainer(int model_type = kBpe, bool byte_fallback = true) {
  return text(2, number(3, model_type) + number(35, byte_fallback));
}

// A space before the text, none taken away, written as U+2581: as in Mistral's.
inline std::string normalizer(std::string_view more = "") {
  return text(3,
              text(1, "identity") + number(3, 1) + number(4, 0) + number(5, 1) + std::string(more));
}

// 3 to 258 are the bytes; 259 ▁, 260 a, 261 b, 262 ab, 263 ▁ab.
inline std::string small_model(const std::string& more_pieces = "") {
  return specials() + bytes_of_fallback() + piece("\u2581", kNormal, -3) + piece("a", kNormal, -4) +
         piece("b", kNormal, -5) + piece("ab", kNormal, -1) +
         piece(
             "\u2581"
             "ab",
             kNormal,
             -2) +
         more_pieces + trainer() + normalizer();
}

}  // namespace mistral_ext::tokenizers
