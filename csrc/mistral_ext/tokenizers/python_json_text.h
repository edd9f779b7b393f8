#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// A text that may be JSON, as a parser of JSON can read it where Python's json reads more: numbers
// of any size, Infinity and NaN. What is no JSON to Python is none afterwards.
struct PythonJsonText {
  bool is_none = false;  // no JSON for certain; the rest then means nothing
  std::string text;      // each number is a 0
  // The numbers in the text's order, as json.dumps(json.loads(text)) writes them.
  std::vector<std::string> numbers;
  // An escape such as \ud800 in a string, which UTF-8 cannot have, stands there as \ufffd.
  bool has_lone_surrogate = false;
  // An integer has more digits than Python reads.
  bool has_long_integer = false;
};

PythonJsonText read_python_json_text(std::string_view text);

}  // namespace mistral_ext::tokenizers
