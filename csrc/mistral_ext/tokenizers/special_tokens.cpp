#include "mistral_ext/tokenizers/special_tokens.h"

namespace mistral_ext::tokenizers {

void SpecialTokens::add(std::string_view token, int64_t id) {
  if (finder_.add(token, static_cast<int32_t>(ids_.size()))) ids_.push_back(id);
}

void SpecialTokens::split(std::string_view text,
                          const std::function<void(std::string_view)>& on_text,
                          const std::function<void(int64_t)>& on_token) const {
  size_t done = 0;
  for (const auto& match : finder_.find_all(text)) {
    if (match.begin > done) on_text(text.substr(done, match.begin - done));
    on_token(ids_[static_cast<size_t>(match.value)]);
    done = match.end;
  }
  if (done < text.size()) on_text(text.substr(done));
}

}  // namespace mistral_ext::tokenizers
