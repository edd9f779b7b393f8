#include "mistral_ext/models/parameter_shapes.h"

#include <fmt/format.h>

namespace mistral_ext::models {

std::vector<ParameterShape> parameter_shapes(const MistralConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  const int64_t query = config.num_attention_heads * config.head_dim;
  const int64_t key = config.num_key_value_heads * config.head_dim;
  const std::vector<ParameterShape> layer = {
      {"input_layernorm", {hidden}},
      {"self_attn.q_proj", {query, hidden}},
      {"self_attn.k_proj", {key, hidden}},
      {"self_attn.v_proj", {key, hidden}},
      {"self_attn.o_proj", {hidden, query}},
      {"post_attention_layernorm", {hidden}},
      {"mlp.gate_proj", {intermediate, hidden}},
      {"mlp.up_proj", {intermediate, hidden}},
      {"mlp.down_proj", {hidden, intermediate}},
  };
  std::vector<ParameterShape> shapes;
  shapes.reserve(3 + config.num_hidden_layers * layer.size());
  shapes.emplace_back("model.embed_tokens.weight", std::vector{config.vocab_size, hidden});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    for (const auto& [name, shape] : layer) {
      shapes.emplace_back(fmt::format("model.layers.{}.{}.weight", i, name), shape);
    }
  }
  shapes.emplace_back("model.norm.weight", std::vector{hidden});
  shapes.emplace_back("lm_head.weight", std::vector{config.vocab_size, hidden});
  return shapes;
}

}  // namespace mistral_ext::models
