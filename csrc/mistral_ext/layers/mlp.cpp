#include "mistral_ext/layers/mlp.h"

#include "mistral_ext/ops/silu_mul.h"

namespace mistral_ext::layers {

MLP::MLP(const MistralConfig& config) : torch::nn::Module("MLP") {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  gate_proj_ = register_module("gate_proj", std::make_shared<Linear>(hidden, intermediate));
  up_proj_ = register_module("up_proj", std::make_shared<Linear>(hidden, intermediate));
  down_proj_ = register_module("down_proj", std::make_shared<Linear>(intermediate, hidden));
}

at::Tensor MLP::forward(const at::Tensor& hidden_states) const {
  const auto both = ops::linear_many(hidden_states, {gate_proj_->weight(), up_proj_->weight()});
  return down_proj_->forward(ops::silu_mul(both[0], both[1]));
}

}  // namespace mistral_ext::layers
