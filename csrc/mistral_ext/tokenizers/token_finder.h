#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// Finds many strings in a text, in work that grows with the text alone: neither long strings nor
// such as nearly match make it more. A. Aho and M. Corasick, "Efficient string matching", 1975,
// over the strings and the text from right to left: the longest string that begins at a place is
// then known when the place is reached.
class TokenFinder {
 public:
  TokenFinder() { roots_.fill(kNone); }

  // False for an empty string, and where the string is there. value: not negative.
  bool add(std::string_view text, int32_t value);
  // After the last of them, and before any is looked for.
  void seal();

  struct Match {
    size_t begin;
    size_t end;
    int32_t value;
  };
  // From left to right, none inside another: of those that begin at one place the longest.
  std::vector<Match> find_all(std::string_view text) const;

  bool empty() const { return nodes_.empty(); }

 private:
  static constexpr int32_t kNone = -1;
  // The end of a string.
  struct Node {
    int32_t child = kNone;    // the first of those one byte longer
    int32_t sibling = kNone;  // the next of those under the same one
    int32_t suffix = kNone;   // the longest other one that this one's string begins with
    int32_t token = kNone;    // the longest whole string among itself and what suffix leads to
    int32_t value = kNone;    // of a whole string
    int32_t bytes = 0;
    uint8_t byte = 0;
  };

  int32_t child_of(int32_t node, uint8_t byte) const;
  // Where `byte` before what `node` stands for leads; kNone where nothing ends so.
  int32_t next(int32_t node, uint8_t byte) const;

  std::vector<Node> nodes_;
  std::array<int32_t, 256> roots_;
};

}  // namespace mistral_ext::tokenizers
