#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <memory>

#include "mistral_ext/models/load.h"

namespace mistral_ext::models {

// Two layers, four query and two key heads, a head_dim that is not hidden / heads.
inline MistralConfig tiny_config(int64_t window = 0) {
  MistralConfig config;
  config.vocab_size = 61;
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.max_position_embeddings = 64;
  config.rope.rope_theta = 1e4;
  config.layer_windows = {window, window};
  return config;
}

// Weights large enough that logits spread.
inline std::shared_ptr<MistralForCausalLM> tiny_model(const MistralConfig& config = tiny_config()) {
  torch::manual_seed(0);
  auto model = std::make_shared<MistralForCausalLM>(config);
  io::StateDict state;
  for (const auto& [name, module] : weighted_modules(*model)) {
    const bool is_norm = module->shape().size() == 1;
    state[name] = is_norm ? torch::randn(module->shape()).mul(0.2).add(1)
                          : torch::randn(module->shape()).mul(0.3);
  }
  if (config.tie_word_embeddings) state.erase("lm_head.weight");
  load_parameters(*model, state);
  return model;
}

inline bool same_weights(const MistralForCausalLM& a, const MistralForCausalLM& b) {
  const auto left = state_dict(a);
  const auto right = state_dict(b);
  return left.size() == right.size() &&
         std::all_of(left.begin(), left.end(), [&](const auto& entry) {
           return right.contains(entry.first) && torch::equal(entry.second, right.at(entry.first));
         });
}

}  // namespace mistral_ext::models
