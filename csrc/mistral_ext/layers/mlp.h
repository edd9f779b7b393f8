#pragma once

#include <torch/nn/module.h>

#include <memory>

#include "mistral_ext/core/config.h"
#include "mistral_ext/layers/linear.h"
#include "mistral_ext/parallel/context.h"

namespace mistral_ext::layers {

// down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202).
class MLP : public torch::nn::Module {
 public:
  //   context: the ranks over which the intermediate features are spread.
  explicit MLP(const MistralConfig& config, const parallel::Context& context = {});

  // hidden_states: [batch, seq, hidden_size] -> the same shape.
  at::Tensor forward(const at::Tensor& hidden_states) const;

 private:
  parallel::Context context_;
  std::shared_ptr<Linear> gate_proj_;
  std::shared_ptr<Linear> up_proj_;
  std::shared_ptr<Linear> down_proj_;
};

}  // namespace mistral_ext::layers
