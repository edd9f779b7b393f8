#pragma once

#include <ATen/core/Tensor.h>

#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::generation {

// What generation starts from. Undefined tensors are absent.
struct GenerateInputs {
  // int64 [batch, prompt], prompt >= 0. Where the cache holds tokens, either all tokens from the
  // first on, of which those beyond the cache are fed, or, beside an attention mask that covers
  // all, the new ones alone.
  at::Tensor input_ids;
  // [batch, embedded, hidden_size], fed in place of the ids in the first pass; input_ids are then
  // only what the sequences begin with and may be absent. Covers the cached tokens too.
  at::Tensor inputs_embeds;
  // [batch, cached and new tokens], nonzero where there is a token.
  at::Tensor attention_mask;
  // int64 [batch|1, n], the last of them those of the tokens fed. Absent: counted from the mask.
  at::Tensor position_ids;
  cache::KVCache* cache = nullptr;  // continued and appended to; none: one of generate's own
};

// The inputs checked and reduced to what is fed.
struct Prompt {
  at::Tensor sequences;      // int64 [batch, prompt], on the model's device
  at::Tensor input_ids;      // int64 [batch, fed]; this or the next
  at::Tensor inputs_embeds;  // [batch, fed, hidden_size]
  // bool [batch, past + fed]; undefined where every token is visible.
  at::Tensor attention_mask;
  // int64 [batch|1, fed]; undefined where they are past, past + 1, ...
  at::Tensor position_ids;
  int64_t batch = 0;
  int64_t past = 0;  // tokens in the cache
  int64_t fed = 0;
  int64_t max_length = 0;  // columns of the sequences at most
};

// Throws ValueError where inputs, config and model do not go together.
Prompt prepare_prompt(const models::MistralForCausalLM& model,
                      const GenerateInputs& inputs,
                      const GenerationConfig& config);

}  // namespace mistral_ext::generation
