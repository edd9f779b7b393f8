#include "mistral_ext/models/mistral_for_causal_lm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/layers/vocab_parallel_cross_entropy.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::models {
namespace {

// Looked at before the model runs, so that nothing has entered the cache when it fails.
void check_logits_to_keep(const LogitsToKeep& logits_to_keep, const ModelInputs& inputs) {
  const auto* indices = std::get_if<at::Tensor>(&logits_to_keep);
  if (indices == nullptr) {
    const int64_t count = std::get<int64_t>(logits_to_keep);
    MISTRAL_EXT_CHECK(count >= 0, "logits_to_keep must not be negative, got {}", count);
    return;
  }
  MISTRAL_EXT_CHECK(indices->dim() == 1 && indices->scalar_type() == at::kLong,
                    "logits_to_keep must be an integer or int64 indices of one dimension, got {} "
                    "of {} dimensions",
                    c10::toString(indices->scalar_type()),
                    indices->dim());
  const auto& tokens = inputs.input_ids.defined() ? inputs.input_ids : inputs.inputs_embeds;
  if (!indices->is_cpu() || indices->numel() == 0 || !tokens.defined() || tokens.dim() < 2) return;
  const auto least = indices->min().item<int64_t>();
  const auto most = indices->max().item<int64_t>();
  MISTRAL_EXT_CHECK(least >= 0 && most < tokens.size(1),
                    "logits_to_keep must be in [0, {}), got {}",
                    tokens.size(1),
                    least < 0 ? least : most);
}

at::Tensor kept_positions(const at::Tensor& hidden_states, const LogitsToKeep& logits_to_keep) {
  if (const auto* indices = std::get_if<at::Tensor>(&logits_to_keep)) {
    return hidden_states.index_select(1, indices->to(hidden_states.device()));
  }
  const int64_t count = std::get<int64_t>(logits_to_keep);
  const int64_t seq = hidden_states.size(1);
  return count == 0 || count >= seq ? hidden_states : hidden_states.narrow(1, seq - count, count);
}

void check_labels(const ModelInputs& inputs, const at::Tensor& labels, const LossOptions& options) {
  const auto& tokens = inputs.input_ids.defined() ? inputs.input_ids : inputs.inputs_embeds;
  // Tokens that do not fit are named by the model.
  const bool have_tokens = tokens.defined() && tokens.dim() >= 2;
  MISTRAL_EXT_CHECK(labels.defined() && labels.scalar_type() == at::kLong,
                    "loss: labels must be int64, got {}",
                    labels.defined() ? c10::toString(labels.scalar_type()) : "none");
  MISTRAL_EXT_CHECK(!have_tokens || labels.sizes() == tokens.sizes().slice(0, 2),
                    "loss: labels must have shape {}, got {}",
                    c10::str(tokens.sizes().slice(0, 2)),
                    c10::str(labels.sizes()));
  MISTRAL_EXT_CHECK(options.num_items_in_batch.value_or(1) > 0,
                    "loss: num_items_in_batch must be positive, got {}",
                    options.num_items_in_batch.value_or(1));
}

// labels: int64 [batch, seq] -> int64 [batch * seq], the label of each position's next token.
at::Tensor next_labels(const at::Tensor& labels, int64_t ignore_index) {
  const auto none = at::full({labels.size(0), 1}, ignore_index, labels.options());
  return at::cat({labels.narrow(1, 1, labels.size(1) - 1), none}, 1).flatten();
}

int64_t digest_of(const LogitsToKeep& logits_to_keep) {
  parallel::Digest digest;
  std::visit([&](const auto& kept) { digest.add(kept); }, logits_to_keep);
  return digest.value();
}

// What check_ranks_agree has seen.
ModelInputs agreed(ModelInputs inputs) {
  inputs.ranks_agree = true;
  return inputs;
}

}  // namespace

MistralForCausalLM::MistralForCausalLM(const MistralConfig& config,
                                       const parallel::Context& context)
    : torch::nn::Module("MistralForCausalLM") {
  model_ = register_module("model", std::make_shared<MistralModel>(config, context));
  lm_head_ = register_module(
      "lm_head",
      std::make_shared<layers::Linear>(
          config.hidden_size, config.vocab_size, parallel::ShardSpec::column_parallel(context)));
}

CausalLMOutputs MistralForCausalLM::forward(const ModelInputs& inputs,
                                            const LogitsToKeep& logits_to_keep) {
  if (model_->must_agree(inputs)) {
    model_->check_ranks_agree(inputs, {{"logits_to_keep", digest_of(logits_to_keep)}});
    return forward(agreed(inputs), logits_to_keep);
  }
  check_logits_to_keep(logits_to_keep, inputs);
  CausalLMOutputs outputs;
  outputs.model = model_->forward(inputs);
  const auto kept = kept_positions(outputs.model.last_hidden_state, logits_to_keep);
  outputs.logits = parallel::all_gather_last(
      lm_head_->forward(parallel::copy_to_ranks(kept, parallel())), parallel());
  return outputs;
}

at::Tensor MistralForCausalLM::loss(const ModelInputs& inputs,
                                    const at::Tensor& labels,
                                    const LossOptions& options) {
  if (model_->must_agree(inputs)) {
    parallel::Digest digest;
    digest.add(labels).add(options.ignore_index).add(options.num_items_in_batch.value_or(-1));
    model_->check_ranks_agree(inputs, {{"labels", digest.value()}});
    return loss(agreed(inputs), labels, options);
  }
  check_labels(inputs, labels, options);
  const auto hidden_states = model_->forward(inputs).last_hidden_state;
  const auto targets = next_labels(labels.to(hidden_states.device()), options.ignore_index);
  const auto total = layers::vocab_parallel_cross_entropy(
      hidden_states.flatten(0, 1), lm_head_->weight(), targets, options.ignore_index, parallel());
  if (options.num_items_in_batch) return total / *options.num_items_in_batch;
  return total / targets.ne(options.ignore_index).sum();
}

}  // namespace mistral_ext::models
