#include "mistral_ext/models/decoder_layer.h"

namespace mistral_ext::models {

DecoderLayer::DecoderLayer(const MistralConfig& config, const parallel::Context& context)
    : torch::nn::Module("DecoderLayer") {
  const auto norm = [&] {
    return std::make_shared<layers::RMSNorm>(config.hidden_size, config.rms_norm_eps);
  };
  self_attn_ = register_module("self_attn", std::make_shared<layers::Attention>(config, context));
  mlp_ = register_module("mlp", std::make_shared<layers::MLP>(config, context));
  input_layernorm_ = register_module("input_layernorm", norm());
  post_attention_layernorm_ = register_module("post_attention_layernorm", norm());
}

at::Tensor add_and_normalise(const layers::RMSNorm& norm, ResidualStream& stream) {
  if (!stream.pending.defined()) return norm.forward(stream.sum);
  auto [normalised, sum] = norm.forward(stream.pending, stream.sum);
  stream.sum = std::move(sum);
  stream.pending = at::Tensor();
  return normalised;
}

void DecoderLayer::forward(ResidualStream& stream,
                           const LayerContext& context,
                           at::Tensor* input) const {
  const auto attention_input = add_and_normalise(*input_layernorm_, stream);
  if (input != nullptr) *input = stream.sum;
  stream.pending = self_attn_->forward(attention_input,
                                       context.angles,
                                       context.visibility,
                                       context.cache,
                                       context.differentiable,
                                       context.packing);
  stream.pending = mlp_->forward(add_and_normalise(*post_attention_layernorm_, stream));
}

}  // namespace mistral_ext::models
