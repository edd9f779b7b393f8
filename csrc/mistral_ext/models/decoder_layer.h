#pragma once

#include <torch/nn/module.h>

#include <memory>

#include "mistral_ext/layers/attention.h"
#include "mistral_ext/layers/mlp.h"
#include "mistral_ext/layers/rms_norm.h"
#include "mistral_ext/parallel/context.h"

namespace mistral_ext::models {

// The residual stream between two blocks, with the last block's output not yet added, so that the
// next norm can add and normalise in one pass. The stream's value is sum + pending.
struct ResidualStream {
  at::Tensor sum;      // [batch, seq, hidden_size]
  at::Tensor pending;  // the same, or undefined: nothing to add
};

// What every layer of one forward pass shares.
struct LayerContext {
  const layers::RotaryAngles& angles;
  const layers::Visibility& visibility;
  cache::KVCacheLayer* cache;
  bool differentiable;
  const layers::Packing* packing = nullptr;  // of the tokens in the stream
};

// norm -> attention -> add, norm -> MLP -> add.
class DecoderLayer : public torch::nn::Module {
 public:
  explicit DecoderLayer(const MistralConfig& config, const parallel::Context& context = {});

  // Updates `stream` in place; afterwards its sum is the value after attention and its pending the
  // MLP's output. Where `input` is not null, the stream's value on entry is written to it.
  void forward(ResidualStream& stream, const LayerContext& context, at::Tensor* input) const;

 private:
  std::shared_ptr<layers::Attention> self_attn_;
  std::shared_ptr<layers::MLP> mlp_;
  std::shared_ptr<layers::RMSNorm> input_layernorm_;
  std::shared_ptr<layers::RMSNorm> post_attention_layernorm_;
};

// Adds what is pending to the stream's sum and returns norm(sum).
at::Tensor add_and_normalise(const layers::RMSNorm& norm, ResidualStream& stream);

}  // namespace mistral_ext::models
