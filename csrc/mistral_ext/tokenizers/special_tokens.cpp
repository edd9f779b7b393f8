#include "mistral_ext/tokenizers/special_tokens.h"

#include <utility>

namespace mistral_ext::tokenizers {

void SpecialTokens::add(std::string token, int64_t id) {
  if (token.empty()) return;
  auto& same_length = tokens_[static_cast<unsigned char>(token[0])][token.size()];
  same_length.emplace(std::move(token), id);
}

void SpecialTokens::split(std::string_view text,
                          const std::function<void(std::string_view)>& on_text,
                          const std::function<void(int64_t)>& on_token) const {
  size_t begin = 0;  // of the text since the last special token
  size_t i = 0;
  while (i < text.size()) {
    size_t length = 0;
    int64_t id = 0;
    for (const auto& [size, tokens] : tokens_[static_cast<unsigned char>(text[i])]) {
      if (size > text.size() - i) continue;
      const auto found = tokens.find(text.substr(i, size));
      if (found == tokens.end()) continue;
      length = size;
      id = found->second;
      break;
    }
    if (length == 0) {
      ++i;
      continue;
    }
    if (i > begin) on_text(text.substr(begin, i - begin));
    on_token(id);
    i += length;
    begin = i;
  }
  if (begin < text.size()) on_text(text.substr(begin));
}

}  // namespace mistral_ext::tokenizers
