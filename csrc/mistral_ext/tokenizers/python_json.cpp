#include "mistral_ext/tokenizers/python_json.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <utility>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"

namespace mistral_ext::tokenizers {
namespace {

std::string number(double x) {
  if (std::isinf(x)) return x < 0 ? "-Infinity" : "Infinity";
  auto text = fmt::format("{}", x);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// Whether there are so many digits in a row.
bool has_digits(std::string_view text, int count) {
  int row = 0;
  for (const char c : text) {
    row = c >= '0' && c <= '9' ? row + 1 : 0;
    if (row == count) return true;
  }
  return false;
}

class Writer : public io::JsonEvents {
 public:
  void begin_object() override { open_.push_back({true, {}, {}}); }
  void begin_array() override { open_.push_back({false, {}, {}}); }
  void end_object() override { end(); }
  void end_array() override { end(); }
  void key(std::string name) override { open_.back().key = python_json_string(name); }
  void scalar(io::JsonScalar value) override {
    struct Text {
      std::string operator()(std::nullptr_t) const { return "null"; }
      std::string operator()(bool x) const { return x ? "true" : "false"; }
      std::string operator()(int64_t x) const { return std::to_string(x); }
      std::string operator()(const std::string& x) const { return python_json_string(x); }
      std::string operator()(double x) const { return number(x); }
    };
    // Which of the two it was, and all its digits, are lost.
    const auto* x = std::get_if<double>(&value);
    too_large_ = too_large_ || (x != nullptr && std::abs(*x) >= 0x1p63);
    put(std::visit(Text(), value));
  }

  std::string take() { return std::move(result_); }
  bool too_large() const { return too_large_; }

 private:
  struct Open {
    bool is_object;
    std::string key;  // of the member that comes next
    std::vector<std::pair<std::string, std::string>> members;
  };

  void put(std::string text) {
    if (open_.empty()) {
      result_ = std::move(text);
      return;
    }
    auto& open = open_.back();
    if (open.is_object) {
      // As in a Python dict, a key that comes again has its first place and its last value.
      for (auto& [key, value] : open.members) {
        if (key == open.key) {
          value = std::move(text);
          return;
        }
      }
    }
    open.members.emplace_back(open.key, std::move(text));
  }
  void end() {
    const auto open = std::move(open_.back());
    open_.pop_back();
    std::string text = open.is_object ? "{" : "[";
    for (size_t i = 0; i < open.members.size(); ++i) {
      if (i > 0) text += ", ";
      if (open.is_object) text += open.members[i].first + ": ";
      text += open.members[i].second;
    }
    put(text + (open.is_object ? "}" : "]"));
  }

  std::vector<Open> open_;
  std::string result_;
  bool too_large_ = false;
};

}  // namespace

std::optional<std::string> python_json(std::string_view text) {
  // Python takes a byte order mark for no JSON.
  if (text.starts_with("\xEF\xBB\xBF")) return std::nullopt;
  Writer writer;
  try {
    io::parse_json(text, "encode_conversation", writer);
  } catch (const c10::ValueError&) {
    return std::nullopt;
  }
  // Not so for 1e22, which is no integer.
  MISTRAL_EXT_CHECK(!writer.too_large() || !has_digits(text, 19),
                    "encode_conversation: integers in JSON must be below 2^63, got a larger one");
  return writer.take();
}

std::string python_json_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    constexpr std::string_view kShort = "\"\\\n\r\t\b\f";
    constexpr std::string_view kNames = "\"\\nrtbf";
    if (const auto found = kShort.find(c); found != std::string_view::npos) {
      result += '\\';
      result += kNames[found];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      result += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      result += c;
    }
  }
  return result + '"';
}

}  // namespace mistral_ext::tokenizers
