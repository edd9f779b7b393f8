#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mistral_ext/generation/sort_order.h"
#include "mistral_ext/generation/top_candidates.h"

namespace mistral_ext::generation {

// What keep_top_p of warpers.h leaves, on the CPU. The sums that decide it are those of
// the sorted row, to the bit; but it is the values alone that are sorted, which their bits can do,
// and of the order of equals no more is found out than the cut asks for.
class Nucleus {
 public:
  // Into rows[i], by rising index: what stays of row i. False where a row has a NaN, +infinity or
  // nothing but -infinity.
  //   scores: fp32 [batch, vocab_size] on the CPU, contiguous.
  //   at_least: so many stay in any case.
  bool find(const at::Tensor& scores,
            double top_p,
            int64_t at_least,
            std::vector<std::vector<Candidate>>& rows);

 private:
  bool sort_row(const float* row, int64_t n, float* sorted);
  void find_removed_equals(const float* row, int64_t n, const float* sorted, int64_t removed);

  SortOrder order_;
  std::vector<uint32_t> keys_;
  std::vector<uint32_t> other_keys_;
  std::vector<int64_t> removed_equals_;  // by rising index
  at::Tensor sorted_;                    // [batch, vocab_size]
  at::Tensor probabilities_;             // of sorted_
};

}  // namespace mistral_ext::generation
