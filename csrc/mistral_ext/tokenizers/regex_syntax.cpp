#include "mistral_ext/tokenizers/regex_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/case_folding.h"

namespace mistral_ext::tokenizers {
namespace {

// White_Space. It has not changed since Unicode 6.3; PCRE2's \s holds U+180E too, which left it
// then.
constexpr std::string_view kSpaces =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWords = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside sets Oniguruma has a table for what is below U+0100, which counts ² ³ ¹ ¼ ½ ¾ too.
constexpr std::string_view kWordsOutsideSets =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
// Rust's regex follows UTS 18 to the letter here, Oniguruma does not.
constexpr std::string_view kRustWords = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d})";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_general_category(std::string_view name) {
  constexpr std::array<std::string_view, 7> kSecond{
      "Ccfnos", "Llmotu", "Mcen", "Ndlo", "Pcdefios", "Sckmo", "Zlps"};
  if (name.empty() || name.size() > 2) return false;
  return std::ranges::any_of(kSecond, [&](std::string_view letters) {
    return letters[0] == name[0] &&
           (name.size() == 1 || letters.find(name[1], 1) != std::string_view::npos);
  });
}

class Translator {
 public:
  Translator(std::string_view pattern, RegexSyntax syntax, const std::string& label)
      : pattern_(pattern), oniguruma_(syntax == RegexSyntax::kOniguruma), label_(label) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      in_set_ ? inside_set() : outside_set();
    }
    if (in_set_) refuse("[ without ]");
    for (const auto& string : caseless_strings_.strings()) {
      if (!string.empty() && has_long_folds(string)) refuse_folds("\"" + string + "\"");
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    MISTRAL_EXT_CHECK(
        false,
        "{}: must be a regular expression of the kinds that are read, got {} in \"{}\"",
        label_,
        io::printable(what),
        io::printable(pattern_));
    __builtin_unreachable();  // the check throws
  }

  [[noreturn]] void refuse_folds(const std::string& what) const {
    refuse(what + " under (?i), which folds to several characters or out of them,");
  }

  // The byte `ahead` of the present one; 0 behind the end, where no pattern has anything to say.
  char peek(size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  bool starts_with(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  void copy(size_t bytes = 1) {
    result_ += pattern_.substr(at_, bytes);
    at_ += bytes;
  }
  void put(std::string_view text) { result_ += text; }
  // A byte of a character that stands for itself.
  void literal() {
    if (oniguruma_ && caseless_.back()) caseless_strings_.add(peek());
    copy();
  }

  void outside_set() {
    switch (peek()) {
      case '\\':
        return escape();
      case '[':
        in_set_ = true;
        set_begin_ = at_;
        caseless_strings_.end();
        copy();
        if (peek() == '^') copy();
        if (peek() == ']') {
          put("\\]");
          ++at_;
        }
        return;
      case '(':
        return group();
      case ')':
        if (caseless_.size() > 1) caseless_.pop_back();
        caseless_strings_.close_group();
        return copy();
      case '|':
        caseless_strings_.alternative();
        return copy();
      case '*':
      case '+':
      case '?':
        caseless_strings_.repeat();
        return copy();
      case '{':
        return interval();
      case '}':
      case ']':
        caseless_strings_.end();
        put("\\");
        return copy();
      case '.':
        caseless_strings_.end();
        return copy();
      case '^':
        caseless_strings_.end();
        put(oniguruma_ ? "(?m:^)" : "\\A");
        ++at_;
        return;
      case '$':
        caseless_strings_.end();
        put(oniguruma_ ? "(?m:$)" : "\\z");
        ++at_;
        return;
      default:
        literal();
    }
  }

  void inside_set() {
    switch (peek()) {
      case '\\':
        return escape();
      case ']':
        in_set_ = false;
        copy();
        return check_set();
      case '[':
        refuse("[ inside a set");
      case '&':
        if (peek(1) == '&') refuse("&& inside a set");
        return copy();
      case '-':
      case '~':
        if (!oniguruma_ && peek(1) == peek()) refuse("-- or ~~ inside a set");
        return copy();
      default:
        copy();
    }
  }

  // Oniguruma gives none of them to [^...].
  void check_set() const {
    const auto set = pattern_.substr(set_begin_, at_ - set_begin_);
    if (!oniguruma_ || !caseless_.back() || set[1] == '^') return;
    if (set_has_long_folds(set, label_)) refuse_folds(std::string(set));
  }

  void group() {
    if (peek(1) == '*') refuse("(*");
    const bool is_plain = starts_with("(?:");
    if (at_ > 0 || !starts_with("(?i)")) caseless_strings_.open_group(is_plain);
    caseless_.push_back(caseless_.back());
    if (peek(1) != '?') return copy();
    if (starts_with("(?i:")) caseless_.back() = true;
    if (starts_with("(?-i:")) caseless_.back() = false;
    for (const std::string_view open :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (starts_with(open)) return copy(open.size());
    }
    // Elsewhere they disagree on how far it reaches.
    if (at_ == 0 && starts_with("(?i)")) {
      caseless_ = {true};
      return copy(4);
    }
    refuse(std::string(pattern_.substr(at_, 4)));
  }

  void interval() {
    size_t end = at_ + 1;
    const auto digits = [&] {
      const auto from = end;
      while (end < pattern_.size() && is_digit(pattern_[end])) ++end;
      return end > from;
    };
    bool valid = digits();
    bool range = false;
    if (end < pattern_.size() && pattern_[end] == ',') {
      range = true;
      ++end;
      valid = digits() || valid;
    }
    if (!valid || end >= pattern_.size() || pattern_[end] != '}') {
      caseless_strings_.end();
      put("\\");
      return copy();
    }
    // {1} leaves everything as it is.
    const auto times = pattern_.substr(at_, end + 1 - at_);
    if (times != "{1}" && times != "{1,1}") caseless_strings_.repeat();
    copy(times.size());
    if (oniguruma_ && (peek() == '+' || (peek() == '?' && !range))) {
      refuse("+ or ? behind {n}");
    }
  }

  void set(std::string_view members, bool negated) {
    if (in_set_) {
      if (negated) refuse("\\W inside a set");
      return put(members);
    }
    put(negated ? "[^" : "[");
    put(members);
    put("]");
  }

  void escape() {
    const char c = peek(1);
    if (at_ + 1 >= pattern_.size()) refuse("\\ at the end");
    if (!in_set_ && c != 'x' && c != 'u') caseless_strings_.end();
    const auto words = !oniguruma_ ? kRustWords : in_set_ ? kWords : kWordsOutsideSets;
    const auto skip = [&](std::string_view text) {
      put(text);
      at_ += 2;
    };
    switch (c) {
      case 's':
        at_ += 2;
        return set(kSpaces, false);
      case 'S':
        at_ += 2;
        return in_set_ ? put("\\P{White_Space}") : set(kSpaces, true);
      case 'w':
      case 'W':
        at_ += 2;
        return set(words, c == 'W');
      case 'd':
        return skip("\\p{Nd}");
      case 'D':
        return skip("\\P{Nd}");
      case 'p':
      case 'P':
        return property();
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return copy(2);
      case 'v':
        return skip("\\x{0b}");
      case 'x':
      case 'u':
        return code_point();
      case 'b':
      case 'B': {
        if (in_set_) {
          if (c == 'B') refuse("\\B inside a set");
          return skip("\\x{08}");
        }
        const auto* form = c == 'b' ? "(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))"
                                    : "(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))";
        return skip(fmt::format(fmt::runtime(form), words));
      }
      case 'A':
      case 'z':
        if (!in_set_) return copy(2);
        break;
      case 'Z':
        if (!in_set_ && oniguruma_) return copy(2);
        break;
      default:
        if (static_cast<uint8_t>(c) >= 0x80) {
          ++at_;
          return in_set_ ? copy() : literal();
        }
        if (!is_letter(c) && !is_digit(c)) return copy(2);
    }
    refuse(std::string(pattern_.substr(at_, 2)));
  }

  // \p{Lu}, \p{^Lu}, \pL, \p{Han}
  void property() {
    bool negated = peek(1) == 'P';
    at_ += 2;
    std::string_view name;
    if (peek() == '{') {
      const auto end = pattern_.find('}', at_);
      if (end == std::string_view::npos) refuse("\\p{ without }");
      name = pattern_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
      if (name.starts_with('^')) {
        negated = !negated;
        name.remove_prefix(1);
      }
    } else {
      name = pattern_.substr(at_, 1);
      at_ += name.size();
    }
    const bool plain = !name.empty() && std::ranges::all_of(name, [](char c) {
      return is_letter(c) || c == '_' || c == ' ';
    });
    if (!plain) refuse(fmt::format("\\p{{{}}}", name));
    // PCRE2 takes the name of a script for its Script_Extensions, the others for Script.
    const bool script = !is_general_category(name) && is_script(name);
    const auto text = fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', script ? "sc:" : "", name);
    // (?i) makes no small letter one of \p{Lu} there, but in a set.
    put(oniguruma_ && !in_set_ && caseless_.back() ? "(?-i:" + text + ")" : text);
  }

  // \xHH, \x{H...}, \uHHHH, \u{H...}
  void code_point() {
    const bool two = peek(1) == 'x';
    at_ += 2;
    const bool braces = peek() == '{';
    const auto from = at_ + (braces ? 1 : 0);
    auto end = from + (two ? 2 : 4);
    if (braces) end = std::min(pattern_.find('}', from), pattern_.size());
    end = std::min(end, pattern_.size());
    const auto digits = pattern_.substr(from, end - from);
    uint32_t value = 0;
    const auto [stop, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    const bool whole = !digits.empty() && error == std::errc() &&
                       stop == digits.data() + digits.size() &&
                       (braces ? end < pattern_.size() : digits.size() == (two ? 2U : 4U));
    // To Oniguruma \xHH is a byte, which from 80 on is no character.
    if (!whole || (oniguruma_ && two && !braces && value >= 0x80)) refuse("\\x or \\u");
    put(fmt::format("\\x{{{:x}}}", value));
    if (!in_set_ && oniguruma_ && caseless_.back()) caseless_strings_.add_point(value);
    at_ = end + (braces ? 1 : 0);
  }

  std::string_view pattern_;
  bool oniguruma_;
  const std::string& label_;
  std::string result_;
  size_t at_ = 0;
  bool in_set_ = false;
  size_t set_begin_ = 0;
  CaselessStrings caseless_strings_;
  std::vector<bool> caseless_{false};  // of the groups that are open, outermost first
};

}  // namespace

std::string translate_regex(std::string_view pattern,
                            RegexSyntax syntax,
                            const std::string& label) {
  return Translator(pattern, syntax, label).run();
}

}  // namespace mistral_ext::tokenizers
