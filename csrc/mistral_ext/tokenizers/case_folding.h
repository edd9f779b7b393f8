#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// To Oniguruma some characters are several others where case does not count: (?i)\u00df finds "ss",
// (?i)ss finds U+00DF, (?i)[\u00df] finds both. PCRE2 takes characters one by one.

// Whether a string has such a character, or characters in a row that fold as one does. text: UTF-8.
bool has_long_folds(std::string_view text);

// Whether a set, from [ to ], has one. Throws ValueError, its message beginning with `label`, for
// what is none.
bool set_has_long_folds(std::string_view set, const std::string& label);

// Collects the characters that Oniguruma looks for as one string where case does not count: it
// folds a string as a whole.
class CaselessStrings {
 public:
  // A byte of a character; a character.
  void add(char byte);
  void add_point(uint32_t point);
  // Something else than a character.
  void end();
  // (?: parts no string. Its end parts none where the group is nothing but characters; what
  // follows a group with other things or | in it, or that is repeated, begins another. Other groups
  // part strings.
  void open_group(bool is_plain);
  void close_group();
  void alternative();
  // The last character or group is repeated, and no longer in a string with what is before it.
  void repeat();

  const std::vector<std::string>& strings() const { return strings_; }

 private:
  struct Group {
    size_t begin;  // in the last string
    bool is_string;
    bool has_group;
  };
  std::vector<std::string> strings_{""};  // the last one may go on
  std::vector<Group> groups_;
  size_t last_ = 0;  // where the last character or group begins, in the last string
};

}  // namespace mistral_ext::tokenizers
