#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "mistral_ext/generation/beam_search_config.h"
#include "mistral_ext/generation/callbacks.h"
#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/prompt.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::generation {

// Of each prompt the num_return_sequences best, best first.
struct BeamSearchOutput {
  // int64 [batch * num_return_sequences, prompt + longest]; what is behind a shorter one's end is
  // pad_token_id, or -1 where that is absent.
  at::Tensor sequences;
  // fp32 [batch * num_return_sequences]: the sum of the tokens' scores over the number of tokens to
  // the power of length_penalty.
  at::Tensor sequences_scores;
  // int32 [batch * num_return_sequences, longest]: in which row of `scores` each token was picked;
  // -1 behind the end.
  at::Tensor beam_indices;
  int64_t steps = 0;  // tokens made in each beam
  // A stop was asked for (callbacks.stop): the search ended as though the greatest length were the
  // one it had reached. Cancelled before the prompt was fed whole, the sequences are the prompts,
  // the scores 0, and the cache has a row a prompt.
  bool cancelled = false;
  // Where asked for, one fp32 [batch * num_beams, vocab_size] a step.
  std::vector<at::Tensor> scores;  // processed log-probabilities
  std::vector<at::Tensor> logits;  // the model's
};

// Beam search, and with config.do_sample beam sampling, as Hugging Face's generate does them: the
// same tokens and scores for the same logits, and the same draws for the same seed. Of each prompt
// num_beams beams go on; with n ends a step looks at max(2, n + 1) * num_beams continuations, so
// that enough remain that have not ended. Records no gradients. Throws ValueError for a bad
// argument, before any work. Threads: as generate.
//
// The prompt is fed once a row, however many beams continue it.
//
//   inputs: a row a prompt. A cache that holds tokens has a row a prompt, or already one a beam:
//     then each beam goes on from its own. Afterwards it has one a beam.
//   callbacks: on_step sees the continuations, [batch * max(2, n + 1) * num_beams] rows, each
//     prompt's together and in the order in which they were picked; it returns those that end with
//     this token.
//   generator: what sampling draws from where config.seed is absent; neither: the default one.
BeamSearchOutput beam_search(models::MistralForCausalLM& model,
                             const GenerateInputs& inputs,
                             const GenerationConfig& config,
                             const BeamSearchConfig& beams,
                             const Callbacks& callbacks = {},
                             const std::optional<at::Generator>& generator = std::nullopt);

}  // namespace mistral_ext::generation
