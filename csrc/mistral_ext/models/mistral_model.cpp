#include "mistral_ext/models/mistral_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <torch/nn/modules/container/modulelist.h>

#include <algorithm>
#include <functional>
#include <map>

#include "mistral_ext/core/check.h"
#include "mistral_ext/models/checkpointed_layer.h"
#include "mistral_ext/models/packing_plan.h"
#include "mistral_ext/models/visibility_plan.h"
#include "mistral_ext/parallel/shard_spec.h"

namespace mistral_ext::models {

MistralModel::MistralModel(const MistralConfig& config, const parallel::Context& context)
    : torch::nn::Module("MistralModel"), config_(config), context_(context), rotary_emb_(config) {
  config.validate();
  parallel::check_rank_count(config, context.size());
  MISTRAL_EXT_CHECK(config.hidden_act == "silu" || config.hidden_act == "swish",
                    "config: hidden_act must be silu, got {}",
                    config.hidden_act);
  embed_tokens_ =
      register_module("embed_tokens",
                      std::make_shared<layers::Embedding>(
                          config.vocab_size, config.hidden_size, config.pad_token_id, context));
  auto list = std::make_shared<torch::nn::ModuleListImpl>();
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(std::make_shared<DecoderLayer>(config, context));
    list->push_back(layers_.back());
  }
  register_module("layers", list);
  norm_ = register_module(
      "norm", std::make_shared<layers::RMSNorm>(config.hidden_size, config.rms_norm_eps));
}

layers::RotaryAngles MistralModel::rotary_angles(const ModelInputs& inputs,
                                                 const at::Tensor& embeds,
                                                 const layers::Packing* packing) {
  const int64_t past = inputs.cache == nullptr ? 0 : inputs.cache->seen();
  auto positions = inputs.position_ids;
  if (positions.defined()) positions = positions.to(embeds.device(), at::kLong);
  if (packing != nullptr) {
    if (!positions.defined()) {
      const auto int64 = embeds.options().dtype(at::kLong);
      positions = at::arange(past, past + packing->seq, int64).unsqueeze(0);
    }
    positions = packing->pack(positions.expand({packing->batch, packing->seq}));
  }
  if (positions.defined()) return rotary_emb_.at(positions);
  return rotary_emb_.consecutive(past, embeds.size(1), embeds.device());
}

at::Tensor MistralModel::embed(const at::Tensor& input_ids, const ModelInputs& inputs) const {
  if (inputs.inputs_embeds.defined()) return inputs.inputs_embeds;
  auto embeds = embed_tokens_->forward(input_ids);
  if (inputs.embeddings_require_grad && at::GradMode::is_enabled()) embeds.requires_grad_();
  return embeds;
}

bool MistralModel::is_differentiable(const ModelInputs& inputs, const at::Tensor& embeds) const {
  if (!at::GradMode::is_enabled()) return false;
  if (embeds.requires_grad()) return true;
  if (inputs.cache != nullptr && inputs.cache->requires_grad()) return true;
  const auto all = parameters();
  return std::any_of(all.begin(), all.end(), [](const auto& p) { return p.requires_grad(); });
}

void MistralModel::check_ranks_agree(const ModelInputs& inputs,
                                     const std::vector<parallel::Statement>& more) const {
  parallel::Digest digest;
  for (const auto* tensor : {&inputs.input_ids,
                             &inputs.inputs_embeds,
                             &inputs.attention_mask,
                             &inputs.qk_mask,
                             &inputs.position_ids}) {
    digest.add(*tensor);
  }
  digest.add(inputs.cache == nullptr ? -1 : inputs.cache->seen());
  std::vector<parallel::Statement> statements{{"the input", digest.value()}};
  statements.insert(statements.end(), more.begin(), more.end());
  parallel::check_agreement(statements, embed_tokens_->weight().device(), context_);
}

void MistralModel::check_checkpointed_layers(const ModelInputs& inputs) const {
  const auto& layers = inputs.checkpointed_layers;
  if (layers.empty()) return;
  MISTRAL_EXT_CHECK(std::ssize(layers) == config_.num_hidden_layers,
                    "checkpointed_layers must have num_hidden_layers = {} entries, got {}",
                    config_.num_hidden_layers,
                    layers.size());
  MISTRAL_EXT_CHECK(
      inputs.cache == nullptr || std::none_of(layers.begin(), layers.end(), std::identity()),
      "checkpointed_layers: a checkpointed layer must have no past_key_values, got some");
}

ModelOutputs MistralModel::forward(const ModelInputs& inputs) {
  if (must_agree(inputs)) check_ranks_agree(inputs);
  check_inputs(inputs, config_);
  check_checkpointed_layers(inputs);
  const auto packing = plan_packing(inputs);
  const auto* packed = packing ? &*packing : nullptr;
  ResidualStream stream;
  stream.sum = embed(packing ? packing->pack(inputs.input_ids) : inputs.input_ids, inputs);
  const bool differentiable = is_differentiable(inputs, stream.sum);
  const auto angles = rotary_angles(inputs, stream.sum, packed);

  // One plan a window: layers of the same window have seen the same tokens.
  std::map<int64_t, layers::Visibility> plans;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const int64_t window = config_.layer_windows[i];
    if (plans.contains(window)) continue;
    const auto* layer = inputs.cache == nullptr ? nullptr : &inputs.cache->layer(i);
    plans.emplace(window, plan_visibility(inputs, window, layer, differentiable));
  }

  ModelOutputs outputs;
  if (inputs.output_hidden_states) outputs.hidden_states.resize(layers_.size() + 1);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerContext context{angles,
                               plans.at(config_.layer_windows[i]),
                               inputs.cache == nullptr ? nullptr : &inputs.cache->layer(i),
                               differentiable,
                               packed};
    auto* input = inputs.output_hidden_states ? &outputs.hidden_states[i] : nullptr;
    const bool checkpointed =
        differentiable && !inputs.checkpointed_layers.empty() && inputs.checkpointed_layers[i];
    // One tensor between two checkpointed layers, not two: it is what they keep. And a hidden state
    // that is shown has to lie on the way to all that follows, or its gradient would be a part.
    const bool adds_first = checkpointed || (differentiable && input != nullptr);
    if (adds_first && stream.pending.defined()) {
      stream = {at::add(stream.pending, stream.sum), at::Tensor()};
    }
    if (checkpointed) {
      if (input != nullptr) *input = stream.sum;
      stream = {forward_checkpointed(*layers_[i], config_, context_, stream.sum, context),
                at::Tensor()};
    } else {
      layers_[i]->forward(stream, context, input);
    }
  }
  outputs.last_hidden_state = add_and_normalise(*norm_, stream);
  if (packing) outputs.last_hidden_state = packing->unpack(outputs.last_hidden_state);
  if (inputs.output_hidden_states) outputs.hidden_states.back() = outputs.last_hidden_state;
  return outputs;
}

}  // namespace mistral_ext::models
