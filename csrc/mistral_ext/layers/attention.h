#pragma once

#include <torch/nn/module.h>

#include <memory>

#include "mistral_ext/cache/kv_cache_layer.h"
#include "mistral_ext/core/config.h"
#include "mistral_ext/layers/linear.h"
#include "mistral_ext/layers/packing.h"
#include "mistral_ext/layers/rotary_embedding.h"
#include "mistral_ext/layers/visibility.h"
#include "mistral_ext/parallel/context.h"

namespace mistral_ext::layers {

// Grouped-query self-attention with rotary positions (Ainslie et al. 2023, arXiv 2305.13245).
class Attention : public torch::nn::Module {
 public:
  //   context: the ranks over which the heads are spread.
  explicit Attention(const MistralConfig& config, const parallel::Context& context = {});

  // hidden_states: [batch, seq, hidden_size] -> the same shape.
  //   cache: appended to and read from, or null.
  //   differentiable: gradients through the cache are wanted.
  //   packing: of the batch that hidden_states, [1, tokens, hidden_size], are the tokens of; the
  //     visibility and the cache are the batch's. Null: there is none.
  at::Tensor forward(const at::Tensor& hidden_states,
                     const RotaryAngles& angles,
                     const Visibility& visibility,
                     cache::KVCacheLayer* cache,
                     bool differentiable,
                     const Packing* packing = nullptr) const;

 private:
  // The part of a mask [batch, heads|1, ...] that is of this rank's heads.
  std::optional<at::Tensor> mask_of_own_heads(const std::optional<at::Tensor>& mask) const;

  parallel::Context context_;
  int64_t heads_;  // of this rank
  int64_t head_dim_;
  double scale_;
  std::shared_ptr<Linear> q_proj_;
  std::shared_ptr<Linear> k_proj_;
  std::shared_ptr<Linear> v_proj_;
  std::shared_ptr<Linear> o_proj_;
};

}  // namespace mistral_ext::layers
