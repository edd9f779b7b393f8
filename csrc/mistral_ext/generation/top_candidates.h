#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace mistral_ext::generation {

// One token of a row of scores.
struct Candidate {
  float score;
  int64_t index;
};

// Finds the highest of a row of scores in memory, reading it once. It keeps its scratch memory: one
// object serves all rows and steps.
class TopCandidates {
 public:
  // The position of the highest of n > 0 scores, the first of equals. None where the row holds a
  // NaN or +infinity.
  std::optional<int64_t> argmax(const float* row, int64_t n);

  // Into `found`, by rising index: every score that is at least the k-th highest (1 <= k <= n),
  // ties with it included and -infinity left out. False where the row holds a NaN or +infinity.
  bool find(const float* row, int64_t n, int64_t k, std::vector<Candidate>& found);

 private:
  bool find_block_maxima(const float* row, int64_t n);

  std::vector<float> block_maxima_;
  std::vector<float> scratch_;
};

}  // namespace mistral_ext::generation
