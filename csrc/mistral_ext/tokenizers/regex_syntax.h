#pragma once

#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

// Whose pattern it is: they look alike and differ in \w, ^, $ and what follows {n,m}.
enum class RegexSyntax {
  kOniguruma,  // tokenizer.json
  kRust,       // tekken.json, and other files of tiktoken's
};

// The same pattern as PCRE2 writes it: \s is Unicode's White_Space, \w Unicode's word character, a
// name in \p{} a general category, a script or a property. Throws ValueError, its message beginning
// with `label`, for what the three libraries read differently or what needs no tokenizer:
// backreferences, named groups, conditions, verbs, sets inside sets, and the like.
std::string translate_regex(std::string_view pattern, RegexSyntax syntax, const std::string& label);

// Whether PCRE2 knows a script by that name.
bool is_script(std::string_view name);

}  // namespace mistral_ext::tokenizers
