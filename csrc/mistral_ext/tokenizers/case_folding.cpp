#include "mistral_ext/tokenizers/case_folding.h"

#include "mistral_ext/tokenizers/regex.h"

namespace mistral_ext::tokenizers {
namespace {

// The characters that CaseFolding.txt of Unicode gives full foldings (status F) of more than one
// character: there are 104, and have been since version 5.1.
constexpr std::string_view kLong =
    "\u00df\u0130\u0149\u01f0\u0390\u03b0\u0587\u1e96\u1e97\u1e98\u1e99\u1e9a\u1e9e\u1f50"
    "\u1f52\u1f54\u1f56\u1f80\u1f81\u1f82\u1f83\u1f84\u1f85\u1f86\u1f87\u1f88\u1f89\u1f8a"
    "\u1f8b\u1f8c\u1f8d\u1f8e\u1f8f\u1f90\u1f91\u1f92\u1f93\u1f94\u1f95\u1f96\u1f97\u1f98"
    "\u1f99\u1f9a\u1f9b\u1f9c\u1f9d\u1f9e\u1f9f\u1fa0\u1fa1\u1fa2\u1fa3\u1fa4\u1fa5\u1fa6"
    "\u1fa7\u1fa8\u1fa9\u1faa\u1fab\u1fac\u1fad\u1fae\u1faf\u1fb2\u1fb3\u1fb4\u1fb6\u1fb7"
    "\u1fbc\u1fc2\u1fc3\u1fc4\u1fc6\u1fc7\u1fcc\u1fd2\u1fd3\u1fd6\u1fd7\u1fe2\u1fe3\u1fe4"
    "\u1fe6\u1fe7\u1ff2\u1ff3\u1ff4\u1ff6\u1ff7\u1ffc\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05"
    "\ufb06\ufb13\ufb14\ufb15\ufb16\ufb17";
// What they fold to. Where one begins with another, the shorter stands for both.
constexpr std::string_view kFolded =
    R"(f[fil]|s[st]|\x{2bc}n|a\x{2be}|i\x{307}|t\x{308}|[wy]\x{30a}|j\x{30c}|h\x{331}|)"
    R"([\x{3b9}\x{3c5}]\x{308}[\x{300}\x{301}\x{342}]|[\x{3c1}\x{3c5}]\x{313}|)"
    R"([\x{3b1}\x{3b7}\x{3b9}\x{3c5}\x{3c9}]\x{342}|)"
    R"([\x{3ac}\x{3ae}\x{3b1}\x{3b7}\x{3c9}\x{3ce}\x{1f00}-\x{1f07}\x{1f20}-\x{1f27})"
    R"(\x{1f60}-\x{1f67}\x{1f70}\x{1f74}\x{1f7c}]\x{3b9}|)"
    R"(\x{574}[\x{565}\x{56b}\x{56d}\x{576}]|\x{57e}\x{576}|\x{565}\x{582})";

}  // namespace

bool has_long_folds(std::string_view text) {
  static const Regex folds("(?i:[" + std::string(kLong) + "]|" + std::string(kFolded) + ")",
                           RegexSyntax::kRust,
                           "regex: long case foldings");
  return !folds.find_all(text).empty();
}

bool set_has_long_folds(std::string_view set, const std::string& label) {
  return !Regex(set, RegexSyntax::kOniguruma, label).find_all(kLong).empty();
}

void CaselessStrings::add(char byte) {
  const bool is_first = (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
  if (is_first) last_ = strings_.back().size();
  if (!groups_.empty() && groups_.back().has_group) groups_.back().is_string = false;
  strings_.back() += byte;
}

void CaselessStrings::add_point(uint32_t point) {
  const auto byte = [&](uint32_t first, int shift) {
    add(static_cast<char>(first | (point >> shift & (first == 0x80 ? 0x3FU : 0x7FU))));
  };
  if (point < 0x80) return byte(0, 0);
  if (point < 0x800) {
    byte(0xC0, 6);
  } else {
    if (point < 0x10000) {
      byte(0xE0, 12);
    } else {
      byte(0xF0, 18);
      byte(0x80, 12);
    }
    byte(0x80, 6);
  }
  byte(0x80, 0);
}

void CaselessStrings::end() {
  if (!strings_.back().empty()) strings_.emplace_back();
  for (auto& group : groups_) group = {0, false, false};
  last_ = 0;
}

void CaselessStrings::open_group(bool is_plain) {
  if (!is_plain) end();
  groups_.push_back({strings_.back().size(), is_plain, false});
}

void CaselessStrings::close_group() {
  if (groups_.empty()) return end();
  const auto group = groups_.back();
  groups_.pop_back();
  // An empty one parts strings too.
  if (!group.is_string || group.begin == strings_.back().size()) return end();
  last_ = group.begin;
  if (groups_.empty()) return;
  // One with another inside is nothing but characters where it is nothing but the other.
  auto& outer = groups_.back();
  if (outer.has_group || outer.begin < group.begin) outer.is_string = false;
  outer.has_group = true;
}

void CaselessStrings::alternative() {
  if (groups_.empty()) return end();
  // What is before the group is no part of its first alternative, nor of what follows the group.
  last_ = groups_.back().begin;
  repeat();
}

void CaselessStrings::repeat() {
  const auto repeated = strings_.back().substr(last_);
  strings_.back().resize(last_);
  end();
  strings_.back() = repeated;
  end();
}

}  // namespace mistral_ext::tokenizers
