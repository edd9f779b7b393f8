#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/regex.h"

namespace mistral_ext::tokenizers {

// What tokenizer.json calls a pattern: {"String": ...} or {"Regex": ...}.
class TextPattern {
 public:
  // Throws ValueError, its message beginning with `label`, for anything else.
  static TextPattern parse(const ConfigMap& component, const std::string& label);
  static TextPattern regex(std::string_view pattern, RegexSyntax syntax, const std::string& label);

  // The String; absent for a Regex.
  std::optional<std::string_view> string() const {
    const auto* string = std::get_if<std::string>(&pattern_);
    return string == nullptr ? std::nullopt : std::optional<std::string_view>(*string);
  }

  // As Regex::find_all.
  std::vector<TextSpan> find_all(std::string_view text) const;

 private:
  explicit TextPattern(std::variant<std::string, Regex> pattern) : pattern_(std::move(pattern)) {}

  std::variant<std::string, Regex> pattern_;
};

}  // namespace mistral_ext::tokenizers
