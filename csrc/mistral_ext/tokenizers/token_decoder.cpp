#include "mistral_ext/tokenizers/token_decoder.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <system_error>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/byte_alphabet.h"
#include "mistral_ext/tokenizers/characters.h"
#include "mistral_ext/tokenizers/pre_tokenizer.h"
#include "mistral_ext/tokenizers/tokenizer_components.h"

namespace mistral_ext::tokenizers {
namespace {

TokenDecoder::Strip read_strip(const ConfigReader& reader, const std::string& label) {
  const auto content = reader.string("content").value_or("");
  MISTRAL_EXT_CHECK(!content.empty() && content.size() == character_length(content[0]),
                    "{}: content must be one character, got \"{}\"",
                    label,
                    io::printable(content));
  const auto count = [&](const char* name) {
    const auto number = reader.integer(name);
    MISTRAL_EXT_CHECK(number && *number >= 0,
                      "{}: {} must be a count, got {}",
                      label,
                      name,
                      number ? fmt::format("{}", *number) : "none");
    return *number;
  };
  return {content, count("start"), count("stop")};
}

// Whether the step makes text of the alphabet, or tokens that stand for bytes, of such ones.
bool keeps_alphabet(const TokenDecoder::Step& step) {
  if (const auto* replaced = std::get_if<TokenDecoder::Replace>(&step.kind)) {
    const auto string = replaced->pattern.string();
    return (string && !is_of_alphabet(*string)) || is_of_alphabet(replaced->content);
  }
  if (const auto* metaspace = std::get_if<TokenDecoder::Metaspace>(&step.kind)) {
    return !is_of_alphabet(metaspace->replacement);
  }
  if (std::holds_alternative<TokenDecoder::ByteFallback>(step.kind)) return !step.fused;
  return !std::holds_alternative<TokenDecoder::ByteLevel>(step.kind);
}

// Whether <0xHH> may come out of it where none went in.
bool makes_byte_tokens(const TokenDecoder::Step& step) {
  const auto* replaced = std::get_if<TokenDecoder::Replace>(&step.kind);
  if (replaced == nullptr) return std::holds_alternative<TokenDecoder::Strip>(step.kind);
  const auto string = replaced->pattern.string();
  return !string || is_of_alphabet(*string);
}

}  // namespace

bool TokenDecoder::stands_for_bytes(std::string_view token) {
  return is_of_alphabet(token) && byte_of(token) < 0;
}

int TokenDecoder::byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  // Rust's reader of numbers takes a sign, of which one digit is left.
  const auto digits = token.substr(token[3] == '+' ? 4 : 3, token[3] == '+' ? 1 : 2);
  uint8_t byte = 0;
  const auto [stop, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
  return error == std::errc() && stop == digits.data() + digits.size() ? byte : -1;
}

TokenDecoder::TokenDecoder(const ConfigMap& fields, const std::string& label) {
  const auto components = read_components(fields, "decoder", "decoders", label);
  bool fused = false;
  bool in_alphabet = true;
  bool byte_tokens = false;
  for (const auto& component : components) {
    const auto& [type, settings, name] = component;
    const ConfigReader reader(*settings, name);
    Step step{Fuse{}, fused, in_alphabet};
    if (type == "Replace") {
      const auto content = reader.string("content");
      MISTRAL_EXT_CHECK(content, "{}: content must be given, got none", name);
      step.kind = Replace{TextPattern::parse(*settings, name), *content};
    } else if (type == "Strip") {
      step.kind = read_strip(reader, name);
    } else if (type == "Metaspace") {
      step.kind = Metaspace{read_replacement(*settings, name),
                            read_prepend_scheme(*settings, name) != PrependScheme::kNever};
    } else if (type == "ByteLevel") {
      step.kind = ByteLevel{};
      fused = true;
    } else if (type == "ByteFallback") {
      step.kind = ByteFallback{};
    } else if (type == "Fuse") {
      fused = true;
    } else {
      refuse_component(component);
    }
    in_alphabet = in_alphabet && keeps_alphabet(step) &&
                  !(byte_tokens && std::holds_alternative<ByteFallback>(step.kind));
    byte_tokens = byte_tokens || makes_byte_tokens(step);
    steps_.push_back(std::move(step));
  }
  // An empty Sequence is none of that.
  if (ConfigReader(fields, label).map("decoder") == nullptr) steps_.push_back({Spaces{}, false});
}

}  // namespace mistral_ext::tokenizers
