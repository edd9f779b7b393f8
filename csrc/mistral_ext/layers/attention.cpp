#include "mistral_ext/layers/attention.h"

#include <cmath>

#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/rotary_embedding.h"

namespace mistral_ext::layers {

Attention::Attention(const MistralConfig& config)
    : torch::nn::Module("Attention"),
      head_dim_(config.head_dim),
      scale_(1.0 / std::sqrt(static_cast<double>(config.head_dim))) {
  const int64_t hidden = config.hidden_size;
  const int64_t query_size = config.num_attention_heads * config.head_dim;
  const int64_t key_size = config.num_key_value_heads * config.head_dim;
  q_proj_ = register_module("q_proj", std::make_shared<Linear>(hidden, query_size));
  k_proj_ = register_module("k_proj", std::make_shared<Linear>(hidden, key_size));
  v_proj_ = register_module("v_proj", std::make_shared<Linear>(hidden, key_size));
  o_proj_ = register_module("o_proj", std::make_shared<Linear>(query_size, hidden));
}

at::Tensor Attention::forward(const at::Tensor& hidden_states,
                              const RotaryAngles& angles,
                              const Visibility& visibility,
                              cache::KVCacheLayer* cache,
                              bool differentiable) const {
  const int64_t batch = hidden_states.size(0);
  const int64_t seq = hidden_states.size(1);
  // [batch, seq, heads * head_dim] -> [batch, seq, heads, head_dim]
  const auto split = [&](const at::Tensor& x) {
    return x.view({batch, seq, x.size(2) / head_dim_, head_dim_});
  };
  const auto projected =
      ops::linear_many(hidden_states, {q_proj_->weight(), k_proj_->weight(), v_proj_->weight()});
  auto [query, key] = ops::rotary_embedding(split(projected[0]),
                                            split(projected[1]),
                                            angles.positions,
                                            angles.cos_sin,
                                            angles.query_scale);
  at::Tensor value = split(projected[2]);
  if (cache != nullptr) {
    auto all = cache->update(key, value, differentiable);
    key = std::move(all.key);
    value = std::move(all.value);
  }
  const auto output = std::get<0>(ops::attention(query,
                                                 key,
                                                 value,
                                                 scale_,
                                                 visibility.is_causal,
                                                 visibility.sliding_window,
                                                 visibility.mask,
                                                 visibility.sequence_ids));
  return o_proj_->forward(output.view({batch, seq, -1}));
}

}  // namespace mistral_ext::layers
