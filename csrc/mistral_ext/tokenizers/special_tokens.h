#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/token_finder.h"

namespace mistral_ext::tokenizers {

// Finds special tokens written out in a text.
class SpecialTokens {
 public:
  // An empty one, and one that is there, stays out.
  void add(std::string_view token, int64_t id);
  // After the last of them.
  void seal() { finder_.seal(); }

  // Calls on_text for what lies between special tokens, where there is any, and on_token for each
  // of them, in the text's order. Of tokens that begin at one place the longest is taken.
  void split(std::string_view text,
             const std::function<void(std::string_view)>& on_text,
             const std::function<void(int64_t)>& on_token) const;

 private:
  TokenFinder finder_;  // values are places in ids_
  std::vector<int64_t> ids_;
};

}  // namespace mistral_ext::tokenizers
