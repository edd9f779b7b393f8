#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// A small tekken.json.
namespace mistral_ext::tokenizers::tekken {

inline std::string base64(std::string_view bytes) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      text += i + k <= bytes.size() ? digits[bits >> (18 - 6 * k) & 63] : '=';
    }
  }
  return text;
}

inline std::string entry(int rank, std::string_view bytes) {
  return "{\"rank\": " + std::to_string(rank) + ", \"token_bytes\": \"" + base64(bytes) +
         "\", \"token_str\": null}";
}

inline const std::string kConfig =
    R"({"pattern": "\\s+|\\w+", "num_vocab_tokens": 259, "default_vocab_size": 281,
        "default_num_special_tokens": 22, "version": "v3"})";

// The bytes, then 256 ab, 257 bc, 258 abc; 22 special tokens before them.
inline std::string vocabulary(const std::string& last = entry(258, "abc")) {
  std::string list = "[";
  for (int i = 0; i < 256; ++i) list += entry(i, std::string(1, static_cast<char>(i))) + ", ";
  return list + entry(256, "ab") + ", " + entry(257, "bc") + ", " + last + "]";
}

inline std::string file(const std::string& config = kConfig,
                        const std::string& vocab = vocabulary(),
                        const std::string& more = "") {
  return "{\"config\": " + config + ", \"vocab\": " + vocab + more + "}";
}

}  // namespace mistral_ext::tokenizers::tekken
