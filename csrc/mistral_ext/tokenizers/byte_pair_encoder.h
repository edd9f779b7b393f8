#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// Byte-pair encoding by rank: of the pairs of neighbours whose bytes are a token, the one of the
// lowest rank is merged, the leftmost of several, until there is none. A token's rank is its place.
class BytePairEncoder {
 public:
  // Throws ValueError, its message beginning with `label`, where the first 256 are not the bytes in
  // order, or two are the same.
  BytePairEncoder(const std::vector<std::string>& tokens, const std::string& label);

  // Appends the ranks of the tokens that the bytes become, each plus `offset`. For n bytes,
  // O(n log n).
  void encode(std::string_view bytes, int64_t offset, std::vector<int64_t>& ids) const;

  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  std::string_view token(int64_t rank) const;
  // -1 where the bytes are no token.
  int32_t rank(std::string_view bytes) const;

 private:
  void merge_few(std::string_view bytes, int64_t offset, std::vector<int64_t>& ids) const;
  void merge_many(std::string_view bytes, int64_t offset, std::vector<int64_t>& ids) const;
  size_t slot(std::string_view bytes) const;

  std::string bytes_;           // of all tokens, one behind the other
  std::vector<size_t> ends_;    // where each ends
  std::vector<int32_t> ranks_;  // a hash table, open addressing; -1 is free
  size_t longest_ = 0;
};

}  // namespace mistral_ext::tokenizers
