#include "mistral_ext/generation/repeated_ngrams.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/token_rows.h"

namespace mistral_ext::generation {

// A row is looked through anew at each step: against an index of its n-grams that costs a
// microsecond for some thousand tokens, and beams, whose rows change places, need nothing else.
at::Tensor forbid_repeated_ngrams(const at::Tensor& scores,
                                  const at::Tensor& input_ids,
                                  int64_t n) {
  const TokenRows rows(input_ids);
  const int64_t length = rows.length();
  const int64_t prefix = n - 1;
  if (length < n) return scores;
  std::vector<int64_t> forbidden;  // places in the flat [rows, vocab_size]
  for (int64_t i = 0; i < rows.count(); ++i) {
    const auto row = rows[i];
    const auto end = row.last(prefix);
    for (int64_t next = prefix; next < length; ++next) {
      // The last of them first: it mostly decides.
      if (prefix > 0 && row[next - 1] != end.back()) continue;
      if (!std::ranges::equal(row.subspan(next - prefix, prefix), end)) continue;
      MISTRAL_EXT_CHECK(row[next] >= 0 && row[next] < scores.size(1),
                        "generate: input_ids must be in [0, {}), got {}",
                        scores.size(1),
                        row[next]);
      forbidden.push_back(i * scores.size(1) + row[next]);
    }
  }
  if (forbidden.empty()) return scores;
  auto left = scores.clone(at::MemoryFormat::Contiguous);
  left.view(-1).index_fill_(0,
                            at::tensor(forbidden, at::kLong).to(scores.device()),
                            -std::numeric_limits<double>::infinity());
  return left;
}

}  // namespace mistral_ext::generation
