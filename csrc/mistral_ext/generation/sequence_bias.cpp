#include "mistral_ext/generation/sequence_bias.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/token_rows.h"

namespace mistral_ext::generation {

SequenceBias::SequenceBias(const char* name,
                           const std::vector<BiasedSequence>& sequences,
                           int64_t vocab_size,
                           const at::Device& device) {
  if (sequences.empty()) return;
  single_.assign(vocab_size, 0.0f);
  for (const auto& [token_ids, bias] : sequences) {
    MISTRAL_EXT_CHECK(!token_ids.empty(), "generate: {} must not be empty, got []", name);
    for (const int64_t token : token_ids) {
      MISTRAL_EXT_CHECK(token >= 0 && token < vocab_size,
                        "generate: {} must be in [0, {}), got {}",
                        name,
                        vocab_size,
                        token);
    }
    if (token_ids.size() == 1) {
      single_[token_ids[0]] = static_cast<float>(bias);
      continue;
    }
    const std::vector<int64_t> prefix(token_ids.begin(), token_ids.end() - 1);
    longer_[prefix.back()].push_back({prefix, token_ids.back(), static_cast<float>(bias)});
  }
  single_on_device_ = at::tensor(single_, at::kFloat).to(device);
}

at::Tensor SequenceBias::add_to(const at::Tensor& scores, const at::Tensor& input_ids) const {
  if (!reads_tokens()) return scores + single_on_device_;
  const TokenRows rows(input_ids);
  std::map<int64_t, float> sums;  // by place in the flat [rows, vocab_size]
  for (int64_t i = 0; i < rows.count() && rows.length() > 0; ++i) {
    const auto row = rows[i];
    const auto found = longer_.find(row.back());
    if (found == longer_.end()) continue;
    for (const auto& [prefix, last, bias] : found->second) {
      if (prefix.size() + 1 > row.size() || !std::ranges::equal(row.last(prefix.size()), prefix)) {
        continue;
      }
      sums.try_emplace(i * scores.size(1) + last, single_[last]).first->second += bias;
    }
  }
  if (sums.empty()) return scores + single_on_device_;
  std::vector<int64_t> places;
  std::vector<float> biases;
  for (const auto& [place, bias] : sums) {
    places.push_back(place);
    biases.push_back(bias);
  }
  auto all = single_on_device_.repeat({scores.size(0), 1});
  all.view(-1).index_copy_(0,
                           at::tensor(places, at::kLong).to(scores.device()),
                           at::tensor(biases, at::kFloat).to(scores.device()));
  return scores + all;
}

}  // namespace mistral_ext::generation
