#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext {

// How positions become angles. The fields are those of Hugging Face's `rope_parameters`; which ones
// a type reads is in layers/rope_init.h.
struct RopeParameters {
  std::string rope_type = "default";  // default, linear, dynamic, yarn or llama3
  double rope_theta = 0.0;
  std::optional<double> factor;
  std::optional<double> attention_factor;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
  double low_freq_factor = 0.0;
  double high_freq_factor = 0.0;
  std::optional<int64_t> original_max_position_embeddings;
  std::optional<double> llama_4_scaling_beta;  // Ministral 3: the query's scale by position
};

// The architecture of one checkpoint. Field names and defaults are Hugging Face's
// MistralConfig / MinistralConfig / Ministral3Config.
struct MistralConfig {
  // More than any model has, and few enough that a list of them is small.
  static constexpr int64_t kMostLayers = 10'000;

  std::string model_type = "mistral";  // mistral, ministral or ministral3
  int64_t vocab_size = 32000;
  int64_t hidden_size = 4096;
  int64_t intermediate_size = 14336;
  int64_t num_hidden_layers = 32;
  int64_t num_attention_heads = 32;
  int64_t num_key_value_heads = 8;
  int64_t head_dim = 128;  // not always hidden_size / num_attention_heads
  std::string hidden_act = "silu";
  int64_t max_position_embeddings = 131072;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  std::optional<int64_t> pad_token_id;
  double attention_dropout = 0.0;
  RopeParameters rope;

  // Keys each layer's queries see, themselves included; 0 is all of them. From `sliding_window`,
  // and for ministral from `layer_types`.
  std::vector<int64_t> layer_windows;

  // Reads a Hugging Face configuration: either rope schema (`rope_parameters`, or `rope_theta` with
  // `rope_scaling`), an absent `sliding_window` meaning the class's default and null or 0 meaning
  // none. Unknown keys are ignored. Throws ValueError that names the field, what it must be and
  // what it was.
  static MistralConfig from_map(const ConfigMap& map);

  // The same as a config.json has it, in the newer rope schema. from_map gives this configuration
  // again.
  ConfigMap to_map() const;

  // Throws ValueError naming the first field whose value cannot work.
  void validate() const;
};

}  // namespace mistral_ext
