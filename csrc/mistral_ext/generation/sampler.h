#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "mistral_ext/generation/candidate_sampler.h"
#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/logits_processor.h"

namespace mistral_ext::generation {

// What sampling draws from: one of config.seed where sampling has a seed, else the one given.
// Nothing: the device's default one. Throws ValueError where the one given is another device's.
std::optional<at::Generator> choose_generator(const GenerationConfig& config,
                                              const std::optional<at::Generator>& given,
                                              const at::Device& device);

// Picks the next token of each row: the likeliest, or one drawn. With the same scores, seed and
// device the tokens are those of torch.argmax and torch.multinomial.
class Sampler {
 public:
  // generator: see choose_generator.
  Sampler(const GenerationConfig& config,
          const std::optional<at::Generator>& generator,
          const LoopExtent& extent);

  // input_ids: int64 [batch, length], all tokens so far. logits: fp32 [batch, vocab_size]. Returns
  // int64 [batch].
  //   scores: where not null, gets the processed scores that the token was picked from.
  at::Tensor next_tokens(const at::Tensor& input_ids, const at::Tensor& logits, at::Tensor* scores);

 private:
  at::Tensor greedy(const at::Tensor& scores);
  at::Tensor draw(const at::Tensor& scores, at::Tensor* warped);

  LogitsProcessor processor_;
  bool do_sample_;
  double temperature_;
  std::optional<at::Generator> generator_;
  TopCandidates top_;
  std::optional<CandidateSampler> candidate_sampler_;
};

}  // namespace mistral_ext::generation
