#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <variant>

#include "mistral_ext/models/mistral_model.h"

namespace mistral_ext::models {

// Which positions get logits: the last n (0: all of them), or int64 indices [n] into the sequence.
using LogitsToKeep = std::variant<int64_t, at::Tensor>;

struct CausalLMOutputs {
  at::Tensor logits;  // [batch, kept, vocab_size], the model's dtype
  ModelOutputs model;
};

// The model with its language-model head. Parameters carry Hugging Face's names
// (`model.layers.0.self_attn.q_proj.weight`), so a state dict goes in and out as it is. Made
// without storage: fill it with load_parameters (models/load.h) or share tensors through
// set_parameter.
class MistralForCausalLM : public torch::nn::Module {
 public:
  explicit MistralForCausalLM(const MistralConfig& config);

  // The head runs on the kept positions alone.
  CausalLMOutputs forward(const ModelInputs& inputs, const LogitsToKeep& logits_to_keep = 0);

  const MistralConfig& config() const { return model_->config(); }
  at::Device device() const { return model_->embed_tokens().weight().device(); }
  at::ScalarType dtype() const { return model_->embed_tokens().weight().scalar_type(); }
  MistralModel& model() { return *model_; }

 private:
  std::shared_ptr<MistralModel> model_;
  std::shared_ptr<layers::Linear> lm_head_;
};

}  // namespace mistral_ext::models
