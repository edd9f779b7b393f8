#include "mistral_ext/models/mistral_for_causal_lm.h"

#include "mistral_ext/core/check.h"

namespace mistral_ext::models {
namespace {

at::Tensor kept_positions(const at::Tensor& hidden_states, const LogitsToKeep& logits_to_keep) {
  if (const auto* indices = std::get_if<at::Tensor>(&logits_to_keep)) {
    MISTRAL_EXT_CHECK(indices->dim() == 1 && indices->scalar_type() == at::kLong,
                      "logits_to_keep must be an integer or int64 indices of one dimension, got {} "
                      "of {} dimensions",
                      c10::toString(indices->scalar_type()),
                      indices->dim());
    return hidden_states.index_select(1, indices->to(hidden_states.device()));
  }
  const int64_t count = std::get<int64_t>(logits_to_keep);
  MISTRAL_EXT_CHECK(count >= 0, "logits_to_keep must not be negative, got {}", count);
  const int64_t seq = hidden_states.size(1);
  return count == 0 || count >= seq ? hidden_states : hidden_states.narrow(1, seq - count, count);
}

}  // namespace

MistralForCausalLM::MistralForCausalLM(const MistralConfig& config)
    : torch::nn::Module("MistralForCausalLM") {
  model_ = register_module("model", std::make_shared<MistralModel>(config));
  lm_head_ = register_module(
      "lm_head", std::make_shared<layers::Linear>(config.hidden_size, config.vocab_size));
}

CausalLMOutputs MistralForCausalLM::forward(const ModelInputs& inputs,
                                            const LogitsToKeep& logits_to_keep) {
  CausalLMOutputs outputs;
  outputs.model = model_->forward(inputs);
  outputs.logits =
      lm_head_->forward(kept_positions(outputs.model.last_hidden_state, logits_to_keep));
  return outputs;
}

}  // namespace mistral_ext::models
