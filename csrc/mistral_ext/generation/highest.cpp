#include "mistral_ext/generation/highest.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/topk.h>

#include <algorithm>

namespace mistral_ext::generation {

// Into found_, falling. False where the answer depends on the order of equals.
bool Highest::find_row(const float* row, int64_t n, int64_t k) {
  if (!top_.find(row, n, k, found_) || std::ssize(found_) != k) return false;
  std::ranges::sort(found_, std::ranges::greater(), &Candidate::score);
  return std::ranges::adjacent_find(found_, std::ranges::equal_to(), &Candidate::score) ==
         found_.end();
}

Highest::Found Highest::find(const at::Tensor& scores, int64_t k, const at::Device& device) {
  const int64_t rows = scores.size(0);
  const int64_t n = scores.size(1);
  if (scores.is_cpu() && k <= n) {
    const Found found{at::empty({rows, k}, scores.options()), at::empty({rows, k}, at::kLong)};
    auto* value = found.values.mutable_data_ptr<float>();
    auto* index = found.indices.mutable_data_ptr<int64_t>();
    const auto* row = scores.const_data_ptr<float>();
    int64_t i = 0;
    for (; i < rows && find_row(row + i * n, n, k); ++i) {
      for (const auto& candidate : found_) {
        *value++ = candidate.score;
        *index++ = candidate.index;
      }
    }
    if (i == rows) return found;
  }
  const auto [values, indices] = at::topk(scores.to(device), k);
  return {values.to(scores.device()), indices.to(scores.device())};
}

}  // namespace mistral_ext::generation
