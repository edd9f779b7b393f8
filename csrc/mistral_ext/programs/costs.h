#pragma once

#include <cstdint>

#include "mistral_ext/models/mistral_for_causal_lm.h"

// What a model cannot do without: the bytes that a step reads, the operations that a prompt takes.
namespace mistral_ext::programs {

// Bytes of weights that a step of decoding reads: all but the rows of an untied embedding.
int64_t weight_bytes(const models::MistralForCausalLM& model);

// Bytes of keys and values that a step reads besides, behind `past` tokens of each row.
int64_t cache_bytes(const models::MistralForCausalLM& model, int64_t batch, int64_t past);

// Multiplications and additions of a pass over prompts of `tokens` tokens, with logits of the last.
double prompt_operations(const models::MistralForCausalLM& model, int64_t batch, int64_t tokens);

}  // namespace mistral_ext::programs
