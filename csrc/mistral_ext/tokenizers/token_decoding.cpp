// The part of TokenDecoder that runs.
#include <charconv>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/tokenizers/byte_alphabet.h"
#include "mistral_ext/tokenizers/characters.h"
#include "mistral_ext/tokenizers/token_decoder.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::tokenizers {
namespace {

using Decoder = TokenDecoder;

// What Replace may make of one token: a file could double it at each step.
constexpr size_t kMostOfToken = 65536;

std::string replace(const Decoder::Replace& step, std::string_view token, size_t most) {
  std::string result;
  size_t at = 0;
  const auto matches = step.pattern.find_all(token);
  const auto bytes = token.size() + matches.size() * step.content.size();
  MISTRAL_EXT_CHECK(bytes <= most,
                    "decode: decoder must make at most {} bytes of this text, got {}",
                    most,
                    bytes);
  for (const auto& match : matches) {
    result += token.substr(at, match.begin - at);
    result += step.content;
    at = match.end;
  }
  return result += token.substr(at);
}

std::string_view strip(const Decoder::Strip& step, std::string_view token) {
  for (int64_t i = 0; i < step.start && token.starts_with(step.content); ++i) {
    token.remove_prefix(step.content.size());
  }
  for (int64_t i = 0; i < step.stop && token.ends_with(step.content); ++i) {
    token.remove_suffix(step.content.size());
  }
  return token;
}

std::string spaces(const Decoder::Metaspace& step, std::string_view token, bool first) {
  std::string result;
  for (size_t i = 0; i < token.size();) {
    const auto character = token.substr(i, character_length(token[i]));
    if (character != step.replacement) {
      result += character;
    } else if (!first || !step.strip_first) {
      result += ' ';
    }
    i += character.size();
  }
  return result;
}

// The byte that <0xHH> names; -1 for other tokens.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  // Rust's reader of numbers takes a sign, of which one digit is left.
  const auto digits = token.substr(token[3] == '+' ? 4 : 3, token[3] == '+' ? 1 : 2);
  uint8_t byte = 0;
  const auto [stop, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
  return error == std::errc() && stop == digits.data() + digits.size() ? byte : -1;
}

}  // namespace

struct TokenDecoding::State {
  std::string held;      // bytes of ByteFallback, or all text so far
  bool seen = false;     // a token has come
  int64_t stripped = 0;  // characters that Strip has taken from the one text
  CharacterBuffer characters{CharacterBuffer::Replace::kBeginning};
};

TokenDecoding::TokenDecoding(const TokenDecoder& decoder) : decoder_(decoder) {
  for (size_t i = 0; i < decoder.steps().size(); ++i) states_.push_back(std::make_shared<State>());
}

void TokenDecoding::feed(size_t step, std::string_view token, std::string& text) {
  if (step == states_.size()) {
    text += token;
    return;
  }
  if (decoder_.steps()[step].fused) return feed_fused(step, token, text);
  auto& state = *states_[step];
  const bool first = !std::exchange(state.seen, true);
  const auto& kind = decoder_.steps()[step].kind;
  if (const auto* replaced = std::get_if<Decoder::Replace>(&kind)) {
    feed(step + 1, replace(*replaced, token, kMostOfToken), text);
  } else if (const auto* stripped = std::get_if<Decoder::Strip>(&kind)) {
    feed(step + 1, strip(*stripped, token), text);
  } else if (const auto* metaspace = std::get_if<Decoder::Metaspace>(&kind)) {
    feed(step + 1, spaces(*metaspace, token, first), text);
  } else if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
    std::string bytes;
    alphabet_to_bytes(token, bytes);
    std::string whole;
    state.characters.put(bytes, whole);
    if (!whole.empty()) feed(step + 1, whole, text);
  } else if (std::holds_alternative<Decoder::ByteFallback>(kind)) {
    if (const auto byte = byte_of(token); byte >= 0) {
      state.held += static_cast<char>(byte);
      return;
    }
    end_bytes(step, text);
    feed(step + 1, token, text);
  } else {
    if (!first && std::holds_alternative<Decoder::Spaces>(kind)) feed(step + 1, " ", text);
    feed(step + 1, token, text);
  }
}

// The bytes of a row of <0xHH>: their text, or U+FFFD for each where they are none as a whole.
void TokenDecoding::end_bytes(size_t step, std::string& text) {
  const auto held = std::exchange(states_[step]->held, {});
  if (held.empty()) return;
  if (first_invalid_utf8(held) == held.size()) return feed(step + 1, held, text);
  for (size_t i = 0; i < held.size(); ++i) feed(step + 1, kReplacementCharacter, text);
}

void TokenDecoding::feed_fused(size_t step, std::string_view part, std::string& text) {
  auto& state = *states_[step];
  const auto& kind = decoder_.steps()[step].kind;
  if (const auto* metaspace = std::get_if<Decoder::Metaspace>(&kind)) {
    feed(step + 1, spaces(*metaspace, part, true), text);
  } else if (const auto* stripped = std::get_if<Decoder::Strip>(&kind);
             stripped != nullptr && stripped->stop == 0) {
    while (!part.empty() && state.stripped < stripped->start) {
      const bool more = part.starts_with(stripped->content);
      state.stripped = more ? state.stripped + 1 : stripped->start;
      if (more) part.remove_prefix(stripped->content.size());
    }
    if (!part.empty()) feed(step + 1, part, text);
  } else if (std::holds_alternative<Decoder::Fuse>(kind)) {
    feed(step + 1, part, text);
  } else {
    // What it makes of the text may depend on what is still to come.
    state.held += part;
  }
}

void TokenDecoding::end(size_t step, std::string& text) {
  if (step == states_.size()) return;
  auto& state = *states_[step];
  const auto& [kind, fused] = decoder_.steps()[step];
  if (!fused && std::holds_alternative<Decoder::ByteFallback>(kind)) {
    end_bytes(step, text);
  } else if (!fused) {
    std::string whole;
    state.characters.finish(whole);
    if (!whole.empty()) feed(step + 1, whole, text);
  } else if (!state.held.empty()) {
    const auto held = std::exchange(state.held, {});
    if (const auto* replaced = std::get_if<Decoder::Replace>(&kind)) {
      feed(step + 1, replace(*replaced, held, kMostOfToken + 64 * received_), text);
    } else if (const auto* stripped = std::get_if<Decoder::Strip>(&kind)) {
      feed(step + 1, strip(*stripped, held), text);
    } else if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
      std::string bytes;
      alphabet_to_bytes(held, bytes);
      std::string whole;
      state.characters.put(bytes, whole);
      state.characters.finish(whole);
      feed(step + 1, whole, text);
    } else if (const auto byte = byte_of(held); byte >= 0) {
      state.held = static_cast<char>(byte);
      end_bytes(step, text);
    } else {
      feed(step + 1, held, text);
    }
  }
  state = State();
  end(step + 1, text);
}

void TokenDecoding::finish(std::string& text) {
  end(0, text);
  received_ = 0;
}

}  // namespace mistral_ext::tokenizers
