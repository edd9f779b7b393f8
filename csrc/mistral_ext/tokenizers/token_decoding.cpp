// The part of TokenDecoder that runs.
#include <algorithm>
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
constexpr size_t kByteName = 6;  // <0xHH>

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

// Bytes at the end of the text that may begin a match of the string.
size_t begun_match(std::string_view text, std::string_view string) {
  auto size = std::min(text.size(), string.size() - 1);
  while (!text.ends_with(string.substr(0, size))) --size;
  return size;
}

// Visible characters of ASCII at the beginning: each stands for itself in ByteLevel's alphabet.
size_t visible_ascii(std::string_view text) {
  size_t size = 0;
  while (size < text.size() && text[size] >= '!' && text[size] <= '~') ++size;
  return size;
}

}  // namespace

struct TokenDecoding::State {
  std::string held;      // bytes of ByteFallback, or text that what comes next may change
  bool seen = false;     // a token has come
  bool decided = false;  // the one text goes on as it is
  size_t made = 0;       // bytes that Replace has made of the one text
  int64_t stripped = 0;  // characters that Strip has taken from the one text
  CharacterBuffer characters{CharacterBuffer::Replace::kBeginning};
};

TokenDecoding::TokenDecoding(const TokenDecoder& decoder, bool only_bytes)
    : decoder_(decoder), only_bytes_(only_bytes) {
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
    put_bytes(step, token, text);
  } else if (std::holds_alternative<Decoder::ByteFallback>(kind)) {
    if (const auto byte = Decoder::byte_of(token); byte >= 0) {
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
  } else if (std::holds_alternative<Decoder::Replace>(kind)) {
    replace_fused(step, part, text);
  } else if (std::holds_alternative<Decoder::Strip>(kind)) {
    strip_fused(step, part, text);
  } else if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
    bytes_fused(step, part, text);
  } else if (std::holds_alternative<Decoder::ByteFallback>(kind) && !state.decided) {
    // The text is one byte's name, or none.
    state.held += part;
    if (state.held.size() <= kByteName) return;
    state.decided = true;
    feed(step + 1, std::exchange(state.held, {}), text);
  } else {
    feed(step + 1, part, text);
  }
}

void TokenDecoding::replace_fused(size_t step, std::string_view part, std::string& text) {
  auto& state = *states_[step];
  const auto& replaced = std::get<Decoder::Replace>(decoder_.steps()[step].kind);
  state.held += part;
  const auto string = replaced.pattern.string();
  // What a regular expression makes of the text may depend on what is still to come.
  if (!string) return;
  const auto matches = replaced.pattern.find_all(state.held);
  const auto done = matches.empty() ? 0 : matches.back().end;
  const auto begun = begun_match(std::string_view(state.held).substr(done), *string);
  const auto ready = std::exchange(state.held, state.held.substr(state.held.size() - begun));
  replace_held(step, std::string_view(ready).substr(0, ready.size() - begun), text);
}

void TokenDecoding::replace_held(size_t step, std::string_view held, std::string& text) {
  auto& made = states_[step]->made;
  const auto& replaced = std::get<Decoder::Replace>(decoder_.steps()[step].kind);
  const auto most = kMostOfToken + 64 * received_;
  const auto whole = replace(replaced, held, most - std::min(most, made));
  made += whole.size();
  if (!whole.empty()) feed(step + 1, whole, text);
}

void TokenDecoding::strip_fused(size_t step, std::string_view part, std::string& text) {
  auto& state = *states_[step];
  const auto& [content, start, stop] = std::get<Decoder::Strip>(decoder_.steps()[step].kind);
  while (!part.empty() && state.stripped < start) {
    const bool more = part.starts_with(content);
    state.stripped = more ? state.stripped + 1 : start;
    if (more) part.remove_prefix(content.size());
  }
  // Held is what would be stripped if the text ended here.
  auto rest = part;
  int64_t count = 0;
  for (; count < stop && rest.ends_with(content); ++count) rest.remove_suffix(content.size());
  if (!rest.empty()) {
    feed(step + 1, std::exchange(state.held, {}), text);
    feed(step + 1, rest, text);
  }
  state.held += part.substr(rest.size());
  while (static_cast<int64_t>(state.held.size() / content.size()) > stop) {
    state.held.resize(state.held.size() - content.size());
    feed(step + 1, content, text);
  }
}

// ByteLevel takes the text as it is where any character of it is not of the alphabet.
void TokenDecoding::bytes_fused(size_t step, std::string_view part, std::string& text) {
  auto& state = *states_[step];
  if (only_bytes_ && decoder_.steps()[step].in_alphabet) {
    put_bytes(step, part, text);
  } else if (state.decided || !is_of_alphabet(part)) {
    state.decided = true;
    feed(step + 1, std::exchange(state.held, {}), text);
    feed(step + 1, part, text);
  } else {
    const auto same = state.held.empty() ? visible_ascii(part) : 0;
    feed(step + 1, part.substr(0, same), text);
    state.held += part.substr(same);
  }
}

void TokenDecoding::put_bytes(size_t step, std::string_view characters, std::string& text) {
  std::string bytes;
  alphabet_to_bytes(characters, bytes);
  std::string whole;
  states_[step]->characters.put(bytes, whole);
  if (!whole.empty()) feed(step + 1, whole, text);
}

void TokenDecoding::end(size_t step, std::string& text) {
  if (step == states_.size()) return;
  auto& state = *states_[step];
  const auto& [kind, fused, in_alphabet] = decoder_.steps()[step];
  const auto held = fused ? std::exchange(state.held, {}) : std::string();
  if (!fused && std::holds_alternative<Decoder::ByteFallback>(kind)) {
    end_bytes(step, text);
  } else if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
    put_bytes(step, held, text);
    std::string whole;
    state.characters.finish(whole);
    if (!whole.empty()) feed(step + 1, whole, text);
  } else if (held.empty() || std::holds_alternative<Decoder::Strip>(kind)) {
    // Nothing is left, or to be left.
  } else if (std::holds_alternative<Decoder::Replace>(kind)) {
    replace_held(step, held, text);
  } else if (const auto byte = Decoder::byte_of(held); byte >= 0) {
    state.held = static_cast<char>(byte);
    end_bytes(step, text);
  } else {
    feed(step + 1, held, text);
  }
  state = State();
  end(step + 1, text);
}

void TokenDecoding::finish(std::string& text) {
  end(0, text);
  received_ = 0;
}

}  // namespace mistral_ext::tokenizers
