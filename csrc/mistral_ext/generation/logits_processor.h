#pragma once

#include <ATen/core/Tensor.h>

#include "mistral_ext/generation/generation_config.h"

namespace mistral_ext::generation {

// What changes the scores before a token is picked, in Hugging Face's order and with its
// operations, so that the same logits give the same tokens to the bit:
//   every step   repetition penalty, no end before the minimum length
//   sampling     temperature, top-k, top-p, min-p
// All are plain ATen and run on any device; the CPU's short cut is in candidate_sampler.h.
//
// scores: fp32 [batch, vocab_size], not modified.

// Keskar et al. 2019, arXiv 1909.05858. input_ids: int64 [batch, length]; each token that occurs is
// penalised once.
at::Tensor penalise_repetition(const at::Tensor& scores,
                               const at::Tensor& input_ids,
                               double penalty);

// Keeps the k highest scores and whatever equals the last of them.
at::Tensor keep_top_k(const at::Tensor& scores, int64_t k);

// Keeps the fewest likeliest tokens whose probabilities reach p (Holtzman et al. 2019, arXiv
// 1904.09751); at least so many.
at::Tensor keep_top_p(const at::Tensor& scores, double p, int64_t at_least = 1);

// Keeps the tokens at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv
// 2407.01082), p <= 1; at least so many.
at::Tensor keep_min_p(const at::Tensor& scores, double p, int64_t at_least = 1);

class LogitsProcessor {
 public:
  // prompt_length: columns of the prompt.
  // min_tokens_to_keep: top-k, top-p and min-p leave at least so many.
  LogitsProcessor(const GenerationConfig& config,
                  int64_t prompt_length,
                  const at::Device& device,
                  int64_t min_tokens_to_keep = 1);

  // What every step needs. length: columns so far. input_ids: int64 [batch, length], all tokens so
  // far; may be undefined unless reads_tokens().
  at::Tensor process(const at::Tensor& input_ids, int64_t length, at::Tensor scores) const;
  bool reads_tokens() const { return repetition_penalty_ != 1.0; }

  // What sampling adds.
  at::Tensor warp(at::Tensor scores) const;

 private:
  double repetition_penalty_;
  int64_t min_length_;  // the prompt included
  double temperature_;
  int64_t top_k_;
  double top_p_;
  double min_p_;
  int64_t min_tokens_to_keep_;
  at::Tensor eos_token_ids_;  // int64 [n], or undefined
};

}  // namespace mistral_ext::generation
