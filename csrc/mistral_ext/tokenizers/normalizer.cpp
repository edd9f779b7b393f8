#include "mistral_ext/tokenizers/normalizer.h"

#include <algorithm>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/tokenizers/characters.h"
#include "mistral_ext/tokenizers/tokenizer_components.h"

namespace mistral_ext::tokenizers {

Normalizer::Normalizer(const ConfigMap& fields, const std::string& label) {
  for (const auto& component : read_components(fields, "normalizer", "normalizers", label)) {
    const ConfigReader reader(*component.settings, component.label);
    if (component.type == "Prepend") {
      const auto text = reader.string("prepend");
      MISTRAL_EXT_CHECK(text, "{}: prepend must be given, got none", component.label);
      steps_.emplace_back(Prepend{*text});
    } else if (component.type == "Replace") {
      const auto content = reader.string("content");
      MISTRAL_EXT_CHECK(content, "{}: content must be given, got none", component.label);
      steps_.emplace_back(
          Replace{TextPattern::parse(*component.settings, component.label), *content});
    } else if (component.type == "Strip") {
      const auto left = reader.boolean("strip_left");
      const auto right = reader.boolean("strip_right");
      MISTRAL_EXT_CHECK(
          left && right, "{}: strip_left and strip_right must be given", component.label);
      steps_.emplace_back(Strip{*left, *right});
    } else {
      refuse_component(component);
    }
  }
}

void Normalizer::apply(TextPieces& pieces) const {
  auto& text = pieces.text;
  for (const auto& step : steps_) {
    if (text.empty()) return;
    if (const auto* prepend = std::get_if<Prepend>(&step)) {
      pieces.check_size(text.size() + prepend->text.size());
      text.insert(0, prepend->text);
      if (pieces.start_bytes > 0) pieces.start_bytes += prepend->text.size();
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      replace_matches(pieces, replace->pattern.find_all(text), replace->content);
    } else {
      const auto& strip = std::get<Strip>(step);
      if (strip.right) text.resize(text.size() - trailing_space(text));
      const auto left = strip.left ? leading_space(text) : 0;
      text.erase(0, left);
      pieces.start_bytes -= std::min(pieces.start_bytes, left);
    }
  }
}

std::string Normalizer::apply(std::string_view text) const {
  TextPieces pieces(text);
  apply(pieces);
  return pieces.text;
}

}  // namespace mistral_ext::tokenizers
