#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/sequence_bias.h"

namespace mistral_ext::generation {

// What a processor has to know of the loop that it serves.
struct LoopExtent {
  int64_t prompt_length = 0;  // columns of the prompt
  int64_t max_length = 0;     // columns of the sequences at most
  int64_t vocab_size = 0;
  at::Device device = at::kCPU;
  int64_t min_tokens_to_keep = 1;  // that sampling's warpers leave at least
};

// Keskar et al. 2019, arXiv 1909.05858. scores: fp32 [batch, vocab_size], not modified. input_ids:
// int64 [batch, length]; each token that occurs is penalised once.
at::Tensor penalise_repetition(const at::Tensor& scores,
                               const at::Tensor& input_ids,
                               double penalty);

// What changes the scores before a token is picked, in Hugging Face's order and with its
// operations, so that the same logits give the same tokens to the bit:
//   every step   what the first part of GenerationConfig's list of processors names
//   sampling     temperature, top-h, top-k, top-p, min-p, typical-p, epsilon, eta: see warpers.h
//   every step   renormalisation
// scores: fp32 [batch, vocab_size], not modified.
class LogitsProcessor {
 public:
  // Throws ValueError where the config names a token that is not in the vocabulary; of those to be
  // suppressed and of the ends such ones are ignored.
  LogitsProcessor(const GenerationConfig& config, const LoopExtent& extent);

  // What every step needs. length: columns so far. input_ids: int64 [batch, length], all tokens so
  // far; may be undefined unless reads_tokens().
  at::Tensor process(const at::Tensor& input_ids, int64_t length, at::Tensor scores) const;
  bool reads_tokens() const;

  // What sampling adds.
  at::Tensor warp(at::Tensor scores) const;

  // What comes last, whether or not there is sampling.
  at::Tensor finish(const at::Tensor& scores) const;

 private:
  at::Tensor force(const at::Tensor& scores, const at::Tensor& token_ids) const;
  at::Tensor favour_ends(const at::Tensor& scores, double steps) const;

  GenerationConfig config_;
  LoopExtent extent_;
  int64_t min_length_;   // the prompt included
  int64_t begin_index_;  // where begin_suppress_tokens are
  SequenceBias sequence_bias_;
  SequenceBias bad_words_;
  // int64 [n] on the device, or undefined where there are none.
  at::Tensor eos_token_ids_;
  at::Tensor forced_bos_;
  at::Tensor forced_eos_;
  at::Tensor suppressed_;
  at::Tensor suppressed_at_begin_;
};

}  // namespace mistral_ext::generation
