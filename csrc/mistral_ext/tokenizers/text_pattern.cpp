#include "mistral_ext/tokenizers/text_pattern.h"

#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr size_t kLongestString = 1024;

}  // namespace

TextPattern TextPattern::parse(const ConfigMap& component, const std::string& label) {
  const auto* pattern = ConfigReader(component, label).map("pattern");
  MISTRAL_EXT_CHECK(pattern != nullptr && pattern->size() == 1,
                    "{}: pattern must be one String or one Regex, got {}",
                    label,
                    pattern == nullptr ? "none" : "others");
  const ConfigReader reader(*pattern, label + ": pattern");
  if (const auto text = reader.string("String")) {
    MISTRAL_EXT_CHECK(!text->empty() && text->size() <= kLongestString,
                      "{}: pattern.String must have 1 to {} bytes, got {}",
                      label,
                      kLongestString,
                      text->size());
    return TextPattern(*text);
  }
  const auto expression = reader.string("Regex");
  MISTRAL_EXT_CHECK(expression, "{}: pattern must be a String or a Regex, got another", label);
  return regex(*expression, RegexSyntax::kOniguruma, label + ": pattern.Regex");
}

TextPattern TextPattern::regex(std::string_view pattern,
                               RegexSyntax syntax,
                               const std::string& label) {
  return TextPattern(Regex(pattern, syntax, label));
}

std::vector<TextSpan> TextPattern::find_all(std::string_view text) const {
  if (const auto* regex = std::get_if<Regex>(&pattern_)) return regex->find_all(text);
  const auto& string = std::get<std::string>(pattern_);
  std::vector<TextSpan> matches;
  for (auto at = text.find(string); at != std::string_view::npos;
       at = text.find(string, at + string.size())) {
    matches.push_back({at, at + string.size()});
  }
  return matches;
}

}  // namespace mistral_ext::tokenizers
