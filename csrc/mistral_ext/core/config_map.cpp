// MistralConfig written as Hugging Face's configuration has it.
#include <algorithm>

#include "mistral_ext/core/config.h"

namespace mistral_ext {
namespace {

ConfigMap rope_map(const RopeParameters& rope) {
  ConfigMap map = {{"rope_type", {rope.rope_type}}, {"rope_theta", {rope.rope_theta}}};
  const auto put = [&](const char* name, const auto& value) {
    if (value) map[name] = {*value};
  };
  put("factor", rope.factor);
  put("attention_factor", rope.attention_factor);
  put("mscale", rope.mscale);
  put("mscale_all_dim", rope.mscale_all_dim);
  put("original_max_position_embeddings", rope.original_max_position_embeddings);
  put("llama_4_scaling_beta", rope.llama_4_scaling_beta);
  if (rope.rope_type == "yarn") {
    map["beta_fast"] = {rope.beta_fast};
    map["beta_slow"] = {rope.beta_slow};
    map["truncate"] = {rope.truncate};
  }
  if (rope.rope_type == "llama3") {
    map["low_freq_factor"] = {rope.low_freq_factor};
    map["high_freq_factor"] = {rope.high_freq_factor};
  }
  return map;
}

}  // namespace

ConfigMap MistralConfig::to_map() const {
  ConfigMap map = {{"model_type", {model_type}},
                   {"vocab_size", {vocab_size}},
                   {"hidden_size", {hidden_size}},
                   {"intermediate_size", {intermediate_size}},
                   {"num_hidden_layers", {num_hidden_layers}},
                   {"num_attention_heads", {num_attention_heads}},
                   {"num_key_value_heads", {num_key_value_heads}},
                   {"head_dim", {head_dim}},
                   {"hidden_act", {hidden_act}},
                   {"max_position_embeddings", {max_position_embeddings}},
                   {"rms_norm_eps", {rms_norm_eps}},
                   {"tie_word_embeddings", {tie_word_embeddings}},
                   {"attention_dropout", {attention_dropout}},
                   {"rope_parameters", {rope_map(rope)}}};
  map["pad_token_id"] = pad_token_id ? ConfigValue{*pad_token_id} : ConfigValue{nullptr};
  const int64_t window = layer_windows.empty() ? 0 : std::ranges::max(layer_windows);
  map["sliding_window"] = window > 0 ? ConfigValue{window} : ConfigValue{nullptr};
  if (model_type == "ministral") {
    ConfigList types;
    for (const int64_t w : layer_windows) {
      types.emplace_back().value = w > 0 ? "sliding_attention" : "full_attention";
    }
    map["layer_types"] = {std::move(types)};
  }
  return map;
}

}  // namespace mistral_ext
