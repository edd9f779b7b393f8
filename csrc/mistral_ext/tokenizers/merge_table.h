#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mistral_ext::tokenizers {

// What two neighbours become, and how early: a lower rank is merged first.
class MergeTable {
 public:
  struct Merge {
    int32_t rank = -1;  // -1 where the two are not merged
    int32_t id = -1;
  };

  explicit MergeTable(size_t merges = 0);

  // A pair that is there takes the later rank.
  void add(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const;

  // Merges neighbours until none can be: the lowest rank first, of equal ones the leftmost. For n
  // ids, O(n log n).
  void apply(std::vector<int32_t>& ids) const;

 private:
  struct Slot {
    uint64_t pair;
    Merge merge;
  };

  size_t slot(uint64_t pair) const;
  void apply_to_few(std::vector<int32_t>& ids) const;
  void apply_to_many(std::vector<int32_t>& ids) const;

  std::vector<Slot> slots_;  // a hash table, open addressing
};

}  // namespace mistral_ext::tokenizers
