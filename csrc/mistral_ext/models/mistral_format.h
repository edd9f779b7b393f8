#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "mistral_ext/core/config.h"

namespace mistral_ext::models {

// Mistral's own checkpoints: params.json beside consolidated.safetensors.

// The configuration that a params.json says. Throws ValueError naming a field that is missing or
// cannot work, or that is not known here (moe, vision_encoder, quantization, ...).
MistralConfig config_of_params(const ConfigMap& params);

// The name there of a Hugging Face parameter: "layers.0.attention.wq.weight" for
// "model.layers.0.self_attn.q_proj.weight". Empty for a name that has none.
std::string mistral_name(const std::string& name);

// Whether a parameter's rows lie in the order of interleaved rotary pairs there: those of q_proj
// and k_proj.
bool is_interleaved(const std::string& name);

// Puts its rows into half-split order, in place: element 2 i of a head goes to i, and 2 i + 1 to
// head_dim / 2 + i.
void half_split_rows_(at::Tensor& weight,  // [heads * head_dim, hidden_size]
                      int64_t head_dim);

}  // namespace mistral_ext::models
