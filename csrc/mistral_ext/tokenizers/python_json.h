#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

// A text in JSON as Python's json.dumps(json.loads(text), ensure_ascii=False) writes it: what
// models were trained on. Absent where the text is no JSON to Python. Throws ValueError for what
// goes deeper than io::kMostJsonDepth, an integer of more digits than Python reads, and an escape
// of half a surrogate pair, which Python reads and no tokenizer takes.
std::optional<std::string> python_json(std::string_view text);

// A string as json.dumps writes it.
std::string python_json_string(std::string_view text);

}  // namespace mistral_ext::tokenizers
