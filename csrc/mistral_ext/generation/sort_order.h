#pragma once

#include <cstdint>
#include <vector>

namespace mistral_ext::generation {

// Which of equal scores at::sort puts first on the CPU. Where a cut falls among equals, as it
// mostly does in logits that a model computed in 16 bits, that decides which of them stay.
//
// at::sort is not stable: it is std::sort, whose result depends on every comparison. But a
// quicksort never moves an element out of the part that it is in, so that to know a few places it
// is enough to follow the parts that they are in.
class SortOrder {
 public:
  // Into `indices`, the elements at places [begin, end) of the row in rising order: end - begin of
  // the second tensor that at::sort returns. False where that cannot be told: is_known() does not
  // hold, n is beyond 32 bits, or the row is so unlucky that std::sort takes to another algorithm.
  //   row: n scores, no NaN among them.
  bool find(const float* row, int64_t n, int64_t begin, int64_t end, std::vector<int64_t>& indices);

  // Whether this torch's at::sort is the algorithm followed here; found by trying.
  static bool is_known();

 private:
  struct Entry {
    float score;
    int32_t index;
  };

  bool follow(const float* row, int64_t n, int64_t begin, int64_t end);
  int64_t partition(int64_t first, int64_t last);
  void insert_sorted(int64_t first, int64_t last);
  static bool follows_sort();

  std::vector<Entry> entries_;
};

}  // namespace mistral_ext::generation
