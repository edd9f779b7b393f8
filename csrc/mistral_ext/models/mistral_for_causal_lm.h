#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "mistral_ext/models/mistral_model.h"
#include "mistral_ext/models/token_steps.h"

namespace mistral_ext::models {

// Which positions get logits: the last n (0: all of them), or int64 indices [n] into the sequence.
using LogitsToKeep = std::variant<int64_t, at::Tensor>;

struct CausalLMOutputs {
  at::Tensor logits;  // [batch, kept, vocab_size], the model's dtype
  ModelOutputs model;
};

struct LossOptions {
  // A label that adds nothing to the loss.
  int64_t ignore_index = -100;
  // What the sum over the positions is divided by: with gradient accumulation, the labels of all
  // batches together that are not ignored. Absent: those of this batch.
  std::optional<int64_t> num_items_in_batch = std::nullopt;
};

// The model with its language-model head. Parameters carry Hugging Face's names
// (`model.layers.0.self_attn.q_proj.weight`), so a state dict goes in and out as it is. Made
// without storage: fill it with load_parameters (models/load.h) or share tensors through
// set_parameter.
//
// Any number of threads may run forward, loss and generate on one model at once, each with a cache
// of its own; nothing may change its parameters meanwhile: docs/cpp.md.
class MistralForCausalLM : public torch::nn::Module {
 public:
  //   context: the ranks over which the weights are spread: docs/parallel.md.
  explicit MistralForCausalLM(const MistralConfig& config, const parallel::Context& context = {});

  // The head runs on the kept positions alone.
  // Throws ValueError where an input does not fit, before any work.
  CausalLMOutputs forward(const ModelInputs& inputs, const LogitsToKeep& logits_to_keep = 0);

  // The loss of Hugging Face's causal language models: the cross-entropy of each label with the
  // logits of the position before it, summed and divided; NaN where it is divided by 0 labels. The
  // logits are never there whole.
  //   labels: int64 [batch, seq], not shifted, most often the input_ids with ignore_index where
  //     there is padding or a prompt.
  //   Returns a scalar in fp32 (fp64 for fp64), with gradients where parameters require them.
  // Throws ValueError where an input does not fit, before any work, and IndexError for a label out
  // of the vocabulary.
  at::Tensor loss(const ModelInputs& inputs,
                  const at::Tensor& labels,
                  const LossOptions& options = {});

  const MistralConfig& config() const { return model_->config(); }
  const parallel::Context& parallel() const { return model_->parallel(); }
  at::Device device() const { return model_->embed_tokens().weight().device(); }
  at::ScalarType dtype() const { return model_->embed_tokens().weight().scalar_type(); }
  MistralModel& model() { return *model_; }
  TokenStepsPool& token_steps() { return token_steps_; }

  // Fields of the configuration file from which the model was loaded that mean nothing to it, such
  // as eos_token_id. Saving writes them again.
  const ConfigMap& extra_config() const { return extra_config_; }
  void set_extra_config(ConfigMap fields) { extra_config_ = std::move(fields); }

 private:
  std::shared_ptr<MistralModel> model_;
  std::shared_ptr<layers::Linear> lm_head_;
  TokenStepsPool token_steps_;
  ConfigMap extra_config_;
};

}  // namespace mistral_ext::models
