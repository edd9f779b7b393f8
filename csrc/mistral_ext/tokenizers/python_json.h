#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

// A text in JSON as Python's json.dumps(json.loads(text), ensure_ascii=False) writes it: what
// models were trained on. Absent where the text is no JSON, or deeper than io::kMostJsonDepth.
// Throws ValueError for a number beyond int64 that may be an integer.
std::optional<std::string> python_json(std::string_view text);

// A string as json.dumps writes it.
std::string python_json_string(std::string_view text);

}  // namespace mistral_ext::tokenizers
