#include "mistral_ext/tokenizers/python_json.h"

#include <c10/util/Exception.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/tokenizers/python_json_text.h"

namespace mistral_ext::tokenizers {
namespace {

class Writer : public io::JsonEvents {
 public:
  // numbers: what is written for each, in the text's order.
  explicit Writer(std::vector<std::string> numbers) : numbers_(std::move(numbers)) {}

  void begin_object() override { open_.emplace_back().is_object = true; }
  void begin_array() override { open_.emplace_back().is_object = false; }
  void end_object() override { end(); }
  void end_array() override { end(); }
  void key(std::string name) override { open_.back().key = python_json_string(name); }
  void scalar(io::JsonScalar value) override {
    if (const auto* x = std::get_if<bool>(&value)) return put(*x ? "true" : "false");
    if (const auto* x = std::get_if<std::string>(&value)) return put(python_json_string(*x));
    if (std::holds_alternative<std::nullptr_t>(value)) return put("null");
    put(std::move(numbers_.at(next_number_++)));
  }

  std::string take() { return std::move(result_); }
  int64_t depth() const { return std::ssize(open_); }

 private:
  struct Open {
    bool is_object = false;
    std::string key;  // of the member that comes next
    std::vector<std::pair<std::string, std::string>> members;
    std::unordered_map<std::string, size_t> places;  // of an object's members by key
  };

  void put(std::string text) {
    if (open_.empty()) {
      result_ = std::move(text);
      return;
    }
    auto& open = open_.back();
    if (open.is_object) {
      // As in a Python dict, a key that comes again has its first place and its last value.
      const auto [found, is_new] = open.places.emplace(open.key, open.members.size());
      if (!is_new) {
        open.members[found->second].second = std::move(text);
        return;
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
  std::vector<std::string> numbers_;
  size_t next_number_ = 0;
};

}  // namespace

std::optional<std::string> python_json(std::string_view text) {
  // Python takes a byte order mark for no JSON.
  if (text.starts_with("\xEF\xBB\xBF")) return std::nullopt;
  auto readable = read_python_json_text(text);
  if (readable.is_none) return std::nullopt;
  Writer writer(std::move(readable.numbers));
  try {
    io::parse_json(readable.text, "encode_conversation", writer);
  } catch (const c10::ValueError&) {
    MISTRAL_EXT_CHECK(writer.depth() < io::kMostJsonDepth,
                      "encode_conversation: JSON must have at most {} levels, got more",
                      io::kMostJsonDepth);
    return std::nullopt;
  }
  MISTRAL_EXT_CHECK(
      !readable.has_long_integer,
      "encode_conversation: integers in JSON must have at most 4300 digits, got more");
  MISTRAL_EXT_CHECK(!readable.has_lone_surrogate,
                    "encode_conversation: JSON must have no half of a surrogate pair, got one");
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
