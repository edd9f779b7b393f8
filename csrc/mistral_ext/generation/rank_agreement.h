#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "mistral_ext/generation/beam_search_config.h"
#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/prompt.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

// What keeps the ranks of a model in step while they generate. Each is a collective where the
// model's weights are spread over several ranks; with one rank nothing happens.
namespace mistral_ext::generation {

// Comes first, so that what is wrong with an argument is wrong on every rank. Throws ValueError on
// every rank where the inputs or the configurations differ. Where tokens are drawn, the ranks'
// generators continue from the state of rank 0's.
//   beams: of beam_search; null for generate.
void agree_on_start(const models::MistralForCausalLM& model,
                    const GenerateInputs& inputs,
                    const GenerationConfig& config,
                    const BeamSearchConfig* beams,
                    const std::optional<at::Generator>& generator);

// Whether a rank says so.
bool any_rank(bool says_so, const models::MistralForCausalLM& model);

// The rows that a rank wants to stop: bool [rows].
//   stopped: bool [rows], this rank's, or undefined for none.
at::Tensor rows_of_any_rank(const at::Tensor& stopped,
                            int64_t rows,
                            const models::MistralForCausalLM& model);

}  // namespace mistral_ext::generation
