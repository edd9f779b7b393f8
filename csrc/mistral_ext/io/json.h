#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext::io {

// A JSON value that holds no others. An integer beyond int64 is a double.
using JsonScalar = std::variant<std::nullptr_t, bool, int64_t, double, std::string>;

// What parse_json meets, in the text's order. A handler throws to refuse; it keeps what it needs
// and no more, so memory stays within a small multiple of the text whatever the text is.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void begin_object() = 0;
  virtual void key(std::string name) = 0;
  virtual void end_object() = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
  virtual void scalar(JsonScalar value) = 0;
};

// Values inside values: a model's files have four or five.
inline constexpr int kMostJsonDepth = 64;

// Reads one JSON text whole. Throws ValueError, its message beginning with `label`, where the text
// is no JSON (comments, NaN and NUL bytes are none), is no UTF-8, or goes deeper than
// kMostJsonDepth. Keys that repeat are the handler's to find.
void parse_json(std::string_view text, const std::string& label, JsonEvents& events);

// The text of an object, keys sorted, numbers with as many digits as they need, indented by two or
// on one line. Throws ValueError, its message beginning with `label`, for a string that is no UTF-8
// or a number that is not finite.
std::string to_json(const ConfigMap& map, const std::string& label, bool indented = true);

}  // namespace mistral_ext::io
