#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "mistral_ext/generation/callbacks.h"
#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/prompt.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::generation {

struct GenerateOutput {
  at::Tensor sequences;  // int64 [batch, prompt + steps]
  int64_t steps = 0;     // tokens made in each row, padding included
  // bool [batch], on the CPU: ended by an end-of-sequence token or by on_step. The others reached
  // the greatest length, or were still going when the last row was stopped.
  at::Tensor stopped;
  // A stop was asked for (callbacks.stop) before every row had ended or was of the greatest length.
  // steps may then be 0.
  bool cancelled = false;
  // Where asked for, one fp32 [batch, vocab_size] a step.
  std::vector<at::Tensor> scores;  // processed: what the token was picked from
  std::vector<at::Tensor> logits;  // the model's
};

// Generates token by token, as Hugging Face's generate does for one beam: the same tokens for the
// same logits, and with sampling the same tokens for the same seed. Records no gradients; what the
// cache holds afterwards has seen every token but the last, or, cancelled in the prompt, whole
// chunks of it. Throws ValueError for a bad argument, before any work.
//
// Any number of threads may generate with one model at once, each with a cache and, where it
// samples, a seed or a generator of its own: docs/cpp.md says what they share.
//   generator: what sampling draws from where config.seed is absent; neither: the default one.
GenerateOutput generate(models::MistralForCausalLM& model,
                        const GenerateInputs& inputs,
                        const GenerationConfig& config,
                        const Callbacks& callbacks = {},
                        const std::optional<at::Generator>& generator = std::nullopt);

}  // namespace mistral_ext::generation
