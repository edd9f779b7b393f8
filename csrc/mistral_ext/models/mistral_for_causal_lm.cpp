#include "mistral_ext/models/mistral_for_causal_lm.h"

#include "mistral_ext/core/check.h"

namespace mistral_ext::models {
namespace {

// Looked at before the model runs, so that nothing has entered the cache when it fails.
void check_logits_to_keep(const LogitsToKeep& logits_to_keep, const ModelInputs& inputs) {
  const auto* indices = std::get_if<at::Tensor>(&logits_to_keep);
  if (indices == nullptr) {
    const int64_t count = std::get<int64_t>(logits_to_keep);
    MISTRAL_EXT_CHECK(count >= 0, "logits_to_keep must not be negative, got {}", count);
    return;
  }
  MISTRAL_EXT_CHECK(indices->dim() == 1 && indices->scalar_type() == at::kLong,
                    "logits_to_keep must be an integer or int64 indices of one dimension, got {} "
                    "of {} dimensions",
                    c10::toString(indices->scalar_type()),
                    indices->dim());
  const auto& tokens = inputs.input_ids.defined() ? inputs.input_ids : inputs.inputs_embeds;
  if (!indices->is_cpu() || indices->numel() == 0 || !tokens.defined() || tokens.dim() < 2) return;
  const auto least = indices->min().item<int64_t>();
  const auto most = indices->max().item<int64_t>();
  MISTRAL_EXT_CHECK(least >= 0 && most < tokens.size(1),
                    "logits_to_keep must be in [0, {}), got {}",
                    tokens.size(1),
                    least < 0 ? least : most);
}

at::Tensor kept_positions(const at::Tensor& hidden_states, const LogitsToKeep& logits_to_keep) {
  if (const auto* indices = std::get_if<at::Tensor>(&logits_to_keep)) {
    return hidden_states.index_select(1, indices->to(hidden_states.device()));
  }
  const int64_t count = std::get<int64_t>(logits_to_keep);
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
  check_logits_to_keep(logits_to_keep, inputs);
  CausalLMOutputs outputs;
  outputs.model = model_->forward(inputs);
  outputs.logits =
      lm_head_->forward(kept_positions(outputs.model.last_hidden_state, logits_to_keep));
  return outputs;
}

}  // namespace mistral_ext::models
