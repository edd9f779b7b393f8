#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "mistral_ext/generation/top_candidates.h"

namespace mistral_ext::generation {

// at::topk of rows, in the order in which it gives equal values too. Where the k highest of each
// row differ and are higher than the rest, there is one answer and it is found faster than ATen
// does; otherwise ATen is asked.
class Highest {
 public:
  struct Found {
    at::Tensor values;   // fp32 [rows, k], falling
    at::Tensor indices;  // int64 [rows, k]
  };

  // scores: fp32 [rows, n], contiguous, on any device; the answer is there too.
  //   device: of which ATen's order of equals is wanted, where the scores are on the CPU.
  Found find(const at::Tensor& scores, int64_t k, const at::Device& device);

 private:
  bool find_row(const float* row, int64_t n, int64_t k);

  TopCandidates top_;
  std::vector<Candidate> found_;
};

}  // namespace mistral_ext::generation
