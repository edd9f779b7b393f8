#include "mistral_ext/tokenizers/python_json_text.h"

#include <fmt/format.h>
#include <locale.h>  // NOLINT(modernize-deprecated-headers): newlocale is POSIX's
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): so is strtod_l

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace mistral_ext::tokenizers {
namespace {

// Of sys.int_info.default_max_str_digits.
constexpr size_t kMostDigits = 4300;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view take_digits(std::string_view& rest) {
  size_t count = 0;
  while (count < rest.size() && is_digit(rest[count])) ++count;
  const auto digits = rest.substr(0, count);
  rest.remove_prefix(count);
  return digits;
}

bool take(std::string_view& rest, std::string_view any_of) {
  const bool is_there = !rest.empty() && any_of.find(rest.front()) != std::string_view::npos;
  if (is_there) rest.remove_prefix(1);
  return is_there;
}

enum class Kind { kNone, kInteger, kReal };

Kind kind_of(std::string_view number) {
  take(number, "-");
  const auto whole = take_digits(number);
  if (whole.empty() || (whole.size() > 1 && whole.front() == '0')) return Kind::kNone;
  if (number.empty()) return Kind::kInteger;
  if (take(number, ".") && take_digits(number).empty()) return Kind::kNone;
  if (take(number, "eE")) {
    take(number, "+-");
    if (take_digits(number).empty()) return Kind::kNone;
  }
  return number.empty() ? Kind::kReal : Kind::kNone;
}

// As float.__repr__ has it, but for the name of the infinities.
std::string real(const std::string& literal) {
  // Not strtod, which the program's locale may tell of another decimal point; and from_chars does
  // not say which end of the range was left.
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  const double x = strtod_l(literal.c_str(), nullptr, c_locale);
  if (std::isinf(x)) return x < 0 ? "-Infinity" : "Infinity";
  auto text = fmt::format("{}", x);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// The code unit of an escape such as \u00e9 at the text's beginning.
std::optional<unsigned> code_unit(std::string_view text) {
  if (text.size() < 6 || !text.starts_with("\\u")) return std::nullopt;
  unsigned unit = 0;
  for (const char c : text.substr(2, 4)) {
    const auto digit = std::string_view("0123456789abcdef").find(is_digit(c) ? c : c | 0x20);
    if (digit == std::string_view::npos) return std::nullopt;
    unit = unit << 4 | static_cast<unsigned>(digit);
  }
  return unit;
}

bool is_high(std::optional<unsigned> unit) { return unit && *unit >> 10 == 0xD800 >> 10; }
bool is_low(std::optional<unsigned> unit) { return unit && *unit >> 10 == 0xDC00 >> 10; }

class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  PythonJsonText scan() {
    while (!rest_.empty()) {
      if (rest_.front() == '"') {
        string();
      } else if (!literal() && !number()) {
        copy(1);
      }
    }
    return std::move(result_);
  }

 private:
  void copy(size_t count) {
    result_.text += rest_.substr(0, count);
    rest_.remove_prefix(std::min(count, rest_.size()));
  }

  void string() {
    copy(1);
    while (!rest_.empty() && rest_.front() != '"') {
      if (rest_.front() == '\\') {
        escape();
      } else {
        copy(1);
      }
    }
    copy(1);
  }

  void escape() {
    const auto unit = code_unit(rest_);
    if (is_high(unit) && is_low(code_unit(rest_.substr(6)))) {
      copy(12);
    } else if (is_high(unit) || is_low(unit)) {
      result_.has_lone_surrogate = true;
      result_.text += "\\ufffd";
      rest_.remove_prefix(6);
    } else {
      copy(2);
    }
  }

  bool literal() {
    for (const char* name : {"NaN", "Infinity", "-Infinity"}) {
      if (!rest_.starts_with(name)) continue;
      put(name);
      rest_.remove_prefix(std::string_view(name).size());
      return true;
    }
    return false;
  }

  bool number() {
    const auto length = std::min(rest_.find_first_not_of("0123456789+-.eE"), rest_.size());
    const auto number = rest_.substr(0, length);
    const auto kind = kind_of(number);
    if (kind == Kind::kNone) {
      // In JSON each digit outside strings is of a number.
      result_.is_none = result_.is_none || number.find_first_of("0123456789") < length;
      copy(length);
      return length > 0;
    }
    if (kind == Kind::kReal) {
      put(real(std::string(number)));
    } else {
      const size_t sign = number.starts_with('-') ? 1 : 0;
      result_.has_long_integer = result_.has_long_integer || number.size() - sign > kMostDigits;
      put(number == "-0" ? "0" : std::string(number));
    }
    rest_.remove_prefix(length);
    return true;
  }

  // Spaces keep it apart from what stands beside it.
  void put(std::string number) {
    result_.numbers.push_back(std::move(number));
    result_.text += " 0 ";
  }

  std::string_view rest_;
  PythonJsonText result_;
};

}  // namespace

PythonJsonText read_python_json_text(std::string_view text) { return Scanner(text).scan(); }

}  // namespace mistral_ext::tokenizers
