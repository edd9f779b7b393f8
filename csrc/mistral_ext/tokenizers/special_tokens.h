#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// Finds special tokens written out in a text.
class SpecialTokens {
 public:
  void add(std::string token, int64_t id);

  // Calls on_text for what lies between special tokens, where there is any, and on_token for each
  // of them, in the text's order. Of tokens that begin at one place the longest is taken.
  void split(std::string_view text,
             const std::function<void(std::string_view)>& on_text,
             const std::function<void(int64_t)>& on_token) const;

 private:
  // By the first byte; tokens of one length together, the longest first.
  std::vector<std::map<size_t, std::map<std::string, int64_t, std::less<>>, std::greater<>>>
      tokens_ = decltype(tokens_)(256);
};

}  // namespace mistral_ext::tokenizers
