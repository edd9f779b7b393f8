#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/text_pattern.h"

namespace mistral_ext::tokenizers {

// How tokenizer.json makes text of tokens: ByteLevel, ByteFallback, Fuse, Metaspace, Replace,
// Strip. Without any, a space goes between them.
class TokenDecoder {
 public:
  // Throws ValueError, its message beginning with `label`, for a kind or a setting that is not
  // read.
  TokenDecoder(const ConfigMap& fields, const std::string& label);

  struct Replace {
    TextPattern pattern;
    std::string content;
  };
  struct Strip {
    std::string content;  // one character
    int64_t start;
    int64_t stop;
  };
  struct Metaspace {
    std::string replacement;
    bool strip_first;  // the first token's are what was put before the text
  };
  struct ByteLevel {};
  struct ByteFallback {};
  struct Fuse {};
  struct Spaces {};
  struct Step {
    std::variant<Replace, Strip, Metaspace, ByteLevel, ByteFallback, Fuse, Spaces> kind;
    // One token reaches it, all text so far, bit by bit.
    bool fused = false;
    // What reaches it is_of_alphabet where each token stands_for_bytes.
    bool in_alphabet = false;
  };

  // Whether it is of ByteLevel's alphabet, and not one of ByteFallback's.
  static bool stands_for_bytes(std::string_view token);
  // The byte that <0xHH> names; -1 for other tokens.
  static int byte_of(std::string_view token);

  const std::vector<Step>& steps() const { return steps_; }

 private:
  std::vector<Step> steps_;
};

// One text being decoded, by one thread. Must not outlive the decoder. Text is given as soon as no
// later token can change it; where a regular expression replaces in all of it, that is at the end.
class TokenDecoding {
 public:
  // only_bytes: each token that may come stands_for_bytes.
  TokenDecoding(const TokenDecoder& decoder, bool only_bytes);

  // Appends to `text` what the token completes.
  void put(std::string_view token, std::string& text) {
    received_ += token.size();
    feed(0, token, text);
  }
  // Appends the rest, and begins anew.
  void finish(std::string& text);

 private:
  struct State;

  void feed(size_t step, std::string_view token, std::string& text);
  void feed_fused(size_t step, std::string_view part, std::string& text);
  void replace_fused(size_t step, std::string_view part, std::string& text);
  void strip_fused(size_t step, std::string_view part, std::string& text);
  void bytes_fused(size_t step, std::string_view part, std::string& text);
  void replace_held(size_t step, std::string_view held, std::string& text);
  void put_bytes(size_t step, std::string_view characters, std::string& text);
  void end(size_t step, std::string& text);
  void end_bytes(size_t step, std::string& text);

  const TokenDecoder& decoder_;
  bool only_bytes_;
  std::vector<std::shared_ptr<State>> states_;
  size_t received_ = 0;  // bytes of tokens
};

}  // namespace mistral_ext::tokenizers
