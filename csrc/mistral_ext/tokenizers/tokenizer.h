#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/text_stream.h"

namespace mistral_ext::tokenizers {

struct EncodeOptions {
  // Puts in what the model's file says belongs around a text: <s> before it, for most of them.
  bool add_special_tokens = true;
  // Finds special tokens written out in the text (</s>, [INST]). Without it they are text like any
  // other: for what a user typed.
  bool parse_special_tokens = true;
};

// Text to token ids and back. Immutable: any number of threads may use one at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Defaults for callers; what overrides these has none of its own to differ in.
  // NOLINTBEGIN(google-default-arguments)

  // text: UTF-8. Throws ValueError naming the byte where it is not.
  virtual std::vector<int64_t> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const = 0;

  // The same for ids that come one at a time.
  virtual std::unique_ptr<TextStream> text_stream(bool skip_special_tokens = false) const = 0;
  // NOLINTEND(google-default-arguments)

  // UTF-8. Bytes that are no character become U+FFFD; ids that no token has are left out. Throws
  // ValueError for a negative id.
  std::string decode(std::span<const int64_t> ids, bool skip_special_tokens = false) const;

  // Ids are below it; there may be holes.
  virtual int64_t vocab_size() const = 0;

  // The id of a token as the model's file writes it; absent where there is none.
  virtual std::optional<int64_t> token_to_id(std::string_view token) const = 0;

  // The token as the model's file writes it. Throws ValueError for an id that is not in use.
  virtual std::string id_to_token(int64_t id) const = 0;

  virtual bool is_special(int64_t id) const = 0;
  virtual std::optional<int64_t> bos_token_id() const = 0;
  virtual std::optional<int64_t> eos_token_id() const = 0;
};

}  // namespace mistral_ext::tokenizers
