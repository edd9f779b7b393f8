#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "mistral_ext/core/config.h"
#include "mistral_ext/layers/embedding.h"
#include "mistral_ext/models/decoder_layer.h"
#include "mistral_ext/models/inputs.h"
#include "mistral_ext/parallel/agreement.h"
#include "mistral_ext/parallel/context.h"

namespace mistral_ext::models {

// Embedding, decoder layers, last norm. Submodules carry Hugging Face's names.
class MistralModel : public torch::nn::Module {
 public:
  //   context: the ranks over which the weights are spread; each holds a part. All of them then
  //     call forward with the same inputs, and get the same outputs.
  explicit MistralModel(const MistralConfig& config, const parallel::Context& context = {});

  // Whether the ranks' inputs are still to be compared: not with one rank.
  bool must_agree(const ModelInputs& inputs) const {
    return context_.is_sharded() && !inputs.ranks_agree;
  }

  // Throws ValueError on all ranks where their inputs differ, or what `more` says. A collective.
  void check_ranks_agree(const ModelInputs& inputs,
                         const std::vector<parallel::Statement>& more = {}) const;

  // Threads: as MistralForCausalLM. Throws ValueError where an input does not fit; nothing is
  // appended to the cache then.
  ModelOutputs forward(const ModelInputs& inputs);

  const layers::Embedding& embed_tokens() const { return *embed_tokens_; }
  const MistralConfig& config() const { return config_; }
  const parallel::Context& parallel() const { return context_; }
  layers::RotaryEmbedding& rotary_emb() { return rotary_emb_; }

 private:
  layers::RotaryAngles rotary_angles(const ModelInputs& inputs,
                                     const at::Tensor& embeds,
                                     const layers::Packing* packing);
  at::Tensor embed(const at::Tensor& input_ids, const ModelInputs& inputs) const;
  bool is_differentiable(const ModelInputs& inputs, const at::Tensor& embeds) const;
  void check_checkpointed_layers(const ModelInputs& inputs) const;

  MistralConfig config_;
  parallel::Context context_;
  std::shared_ptr<layers::Embedding> embed_tokens_;
  std::vector<std::shared_ptr<DecoderLayer>> layers_;
  std::shared_ptr<layers::RMSNorm> norm_;
  layers::RotaryEmbedding rotary_emb_;
};

}  // namespace mistral_ext::models
