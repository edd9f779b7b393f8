#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "mistral_ext/generation/generation_config.h"

namespace mistral_ext::generation {

// Adds to the score of each token that completes one of the sequences what that sequence has;
// -infinity forbids it. A sequence of n > 1 tokens counts from n tokens on, as in Hugging Face,
// not from n - 1.
class SequenceBias {
 public:
  // Throws ValueError, with `name` in it, for a sequence that is empty or not of the vocabulary.
  SequenceBias(const char* name,
               const std::vector<BiasedSequence>& sequences,
               int64_t vocab_size,
               const at::Device& device);

  bool is_empty() const { return single_.empty(); }
  bool reads_tokens() const { return !longer_.empty(); }

  // scores: fp32 [rows, vocab_size]; returns a copy. input_ids: int64 [rows, length], may be
  // undefined unless reads_tokens().
  at::Tensor add_to(const at::Tensor& scores, const at::Tensor& input_ids) const;

 private:
  struct Longer {
    std::vector<int64_t> prefix;
    int64_t last;
    float bias;
  };

  std::vector<float> single_;  // [vocab_size], of sequences of one token; empty: no sequence at all
  at::Tensor single_on_device_;  // the same
  // By the last token of the prefix: what a row's last token does not name need not be looked at.
  std::unordered_map<int64_t, std::vector<Longer>> longer_;
};

}  // namespace mistral_ext::generation
