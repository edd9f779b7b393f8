#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// Finds, of many strings, the longest that a text begins with.
class TokenTrie {
 public:
  TokenTrie() { roots_.fill(kNone); }

  // False where the string is there. value: not negative.
  bool add(std::string_view text, int32_t value);

  struct Match {
    size_t bytes = 0;
    int32_t value = -1;  // -1 where there is none
  };
  Match longest_at(std::string_view text, size_t at) const;

  bool empty() const { return nodes_.empty(); }

 private:
  static constexpr int32_t kNone = -1;
  struct Node {
    int32_t child = kNone;    // the first of those one byte further
    int32_t sibling = kNone;  // the next of those under the same one
    int32_t value = kNone;
    uint8_t byte = 0;
  };

  int32_t new_node(uint8_t byte);

  std::vector<Node> nodes_;
  std::array<int32_t, 256> roots_;
};

}  // namespace mistral_ext::tokenizers
