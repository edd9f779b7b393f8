#include "mistral_ext/layers/attention.h"

#include <cmath>

#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/rotary_embedding.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::layers {

Attention::Attention(const MistralConfig& config, const parallel::Context& context)
    : torch::nn::Module("Attention"),
      context_(context),
      heads_(config.num_attention_heads / context.size()),
      head_dim_(config.head_dim),
      scale_(1.0 / std::sqrt(static_cast<double>(config.head_dim))) {
  const int64_t hidden = config.hidden_size;
  const int64_t query_size = config.num_attention_heads * config.head_dim;
  const int64_t key_size = config.num_key_value_heads * config.head_dim;
  const auto add = [&](const char* name, int64_t in, int64_t out, const parallel::ShardSpec& part) {
    return register_module(name, std::make_shared<Linear>(in, out, part));
  };
  const auto kv_heads = parallel::ShardSpec::key_value_heads(context, config.num_key_value_heads);
  q_proj_ = add("q_proj", hidden, query_size, parallel::ShardSpec::column_parallel(context));
  k_proj_ = add("k_proj", hidden, key_size, kv_heads);
  v_proj_ = add("v_proj", hidden, key_size, kv_heads);
  o_proj_ = add("o_proj", query_size, hidden, parallel::ShardSpec::row_parallel(context));
}

std::optional<at::Tensor> Attention::mask_of_own_heads(
    const std::optional<at::Tensor>& mask) const {
  if (!context_.is_sharded() || !mask || mask->dim() != 4 || mask->size(1) == 1) return mask;
  return mask->narrow(1, context_.rank() * heads_, heads_);
}

at::Tensor Attention::forward(const at::Tensor& hidden_states,
                              const RotaryAngles& angles,
                              const Visibility& visibility,
                              cache::KVCacheLayer* cache,
                              bool differentiable,
                              const Packing* packing) const {
  const int64_t batch = hidden_states.size(0);
  const int64_t seq = hidden_states.size(1);
  // [batch, seq, heads * head_dim] -> [batch, seq, heads, head_dim]
  const auto split = [&](const at::Tensor& x) {
    return x.view({batch, seq, x.size(2) / head_dim_, head_dim_});
  };
  const auto of_all_ranks = [&](const Linear& linear) {
    return parallel::sum_gradients_of_replicas(linear.weight(), linear.shard(), context_);
  };
  const auto projected =
      ops::linear_many(parallel::copy_to_ranks(hidden_states, context_),
                       {q_proj_->weight(), of_all_ranks(*k_proj_), of_all_ranks(*v_proj_)});
  auto [query, key] = ops::rotary_embedding(split(projected[0]),
                                            split(projected[1]),
                                            angles.positions,
                                            angles.cos_sin,
                                            angles.query_scale);
  at::Tensor value = split(projected[2]);
  if (packing != nullptr) {
    query = packing->unpack(query);
    key = packing->unpack(key);
    value = packing->unpack(value);
  }
  if (cache != nullptr) {
    auto all = cache->update(key, value, differentiable);
    key = std::move(all.key);
    value = std::move(all.value);
  }
  auto output = std::get<0>(ops::attention(query,
                                           key,
                                           value,
                                           scale_,
                                           visibility.is_causal,
                                           visibility.sliding_window,
                                           mask_of_own_heads(visibility.mask),
                                           visibility.sequence_ids));
  if (packing != nullptr) output = packing->pack(output);
  return parallel::all_reduce(o_proj_->forward(output.view({batch, seq, -1})), context_);
}

}  // namespace mistral_ext::layers
