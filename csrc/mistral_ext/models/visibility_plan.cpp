#include "mistral_ext/models/visibility_plan.h"

#include <ATen/ops/all.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diff.h>
#include <ATen/ops/roll.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::models {
namespace {

struct Shape {
  int64_t batch;
  int64_t seq;
};

const at::Tensor& tokens(const ModelInputs& inputs) {
  return inputs.input_ids.defined() ? inputs.input_ids : inputs.inputs_embeds;
}

Shape shape_of(const ModelInputs& inputs) {
  return {tokens(inputs).size(0), tokens(inputs).size(1)};
}

// Where positions do not rise by one a new sequence starts: int64 [batch, seq], its number. Nothing
// where every row is one sequence (looked up on CPU alone: elsewhere it would wait for the device).
std::optional<at::Tensor> packed_sequence_ids(const at::Tensor& position_ids) {
  const auto before_first = position_ids.narrow(1, 0, 1).sub(1);
  const auto starts = at::diff(position_ids, 1, 1, before_first).ne(1);
  if (starts.is_cpu() && !starts.any().item<bool>()) return std::nullopt;
  return starts.cumsum(1);
}

bool sees_every_token(const at::Tensor& mask) {
  return mask.is_cpu() && at::all(mask).item<bool>();
}

// A ring's keys lie rotated: slot s holds key s - rotation of the ordered ones.
at::Tensor in_slot_order(const at::Tensor& mask, int64_t rotation) {
  return rotation == 0 ? mask : at::roll(mask, {rotation}, {mask.dim() - 1});
}

// Looked at before any layer runs, so that nothing has entered the cache when it fails. The number
// of keys is known to plan_visibility.
void check_heads(const char* name, const at::Tensor& mask, const Shape& shape, int64_t heads) {
  const auto fits = [&](int64_t dim, int64_t size) {
    return mask.size(dim) == size || mask.size(dim) == 1;
  };
  MISTRAL_EXT_CHECK(fits(0, shape.batch) && fits(1, heads) && fits(2, shape.seq),
                    "{} of 4 dimensions must have shape [{}, {}, {}, keys] or 1 in their place, "
                    "got {}",
                    name,
                    shape.batch,
                    heads,
                    shape.seq,
                    c10::str(mask.sizes()));
}

void check_attention_mask(const ModelInputs& inputs, const Shape& shape, int64_t heads) {
  const auto& mask = inputs.attention_mask;
  MISTRAL_EXT_CHECK(mask.dim() == 2 || mask.dim() == 4,
                    "attention_mask must have 2 or 4 dimensions, got {}",
                    mask.dim());
  if (mask.dim() == 4) {
    MISTRAL_EXT_CHECK(mask.scalar_type() == at::kBool || mask.is_floating_point(),
                      "attention_mask of 4 dimensions must be bool or floating point, got {}",
                      c10::toString(mask.scalar_type()));
    return check_heads("attention_mask", mask, shape, heads);
  }
  const int64_t past = inputs.cache == nullptr ? 0 : inputs.cache->seen();
  MISTRAL_EXT_CHECK(
      mask.size(0) == shape.batch && mask.size(1) == past + shape.seq,
      "attention_mask must have shape [{}, {}] (batch, {} cached and {} new tokens), got {}",
      shape.batch,
      past + shape.seq,
      past,
      shape.seq,
      c10::str(mask.sizes()));
}

void check_qk_mask(const ModelInputs& inputs, const Shape& shape, int64_t heads) {
  const auto& mask = inputs.qk_mask;
  MISTRAL_EXT_CHECK(!inputs.attention_mask.defined(),
                    "forward: at most one of attention_mask and qk_mask must be given, got both");
  MISTRAL_EXT_CHECK(mask.scalar_type() == at::kBool,
                    "qk_mask must be bool, got {}",
                    c10::toString(mask.scalar_type()));
  const int64_t past = inputs.cache == nullptr ? 0 : inputs.cache->seen();
  MISTRAL_EXT_CHECK(mask.dim() == 4 && (mask.size(0) == shape.batch || mask.size(0) == 1) &&
                        (mask.size(1) == heads || mask.size(1) == 1) && mask.size(2) == shape.seq &&
                        mask.size(3) == past + shape.seq,
                    "qk_mask must have shape [{} or 1, {} or 1, {}, {}] ({} cached and {} new "
                    "keys), got {}",
                    shape.batch,
                    heads,
                    shape.seq,
                    past + shape.seq,
                    past,
                    shape.seq,
                    c10::str(mask.sizes()));
}

}  // namespace

void check_cache(const cache::KVCache& cache, const MistralConfig& config, int64_t batch) {
  MISTRAL_EXT_CHECK(cache.num_layers() == config.num_hidden_layers,
                    "past_key_values must have num_hidden_layers = {} layers, got {}",
                    config.num_hidden_layers,
                    cache.num_layers());
  for (int64_t i = 0; i < cache.num_layers(); ++i) {
    MISTRAL_EXT_CHECK(cache.layer(i).window() == config.layer_windows[i],
                      "past_key_values must keep this model's window {} in layer {}, got {}",
                      config.layer_windows[i],
                      i,
                      cache.layer(i).window());
  }
  MISTRAL_EXT_CHECK(cache.seen() == 0 || cache.batch_size() == batch,
                    "past_key_values must hold a batch of {}, got {}",
                    batch,
                    cache.batch_size());
}

void check_inputs(const ModelInputs& inputs, const MistralConfig& config) {
  const bool has_ids = inputs.input_ids.defined();
  MISTRAL_EXT_CHECK(has_ids != inputs.inputs_embeds.defined(),
                    "forward: exactly one of input_ids and inputs_embeds must be given, got {}",
                    has_ids ? "both" : "neither");
  if (has_ids) {
    const auto& ids = inputs.input_ids;
    MISTRAL_EXT_CHECK(ids.dim() == 2, "input_ids must have 2 dimensions, got {}", ids.dim());
    MISTRAL_EXT_CHECK(ids.scalar_type() == at::kLong || ids.scalar_type() == at::kInt,
                      "input_ids must be int64 or int32, got {}",
                      c10::toString(ids.scalar_type()));
  } else {
    const auto& x = inputs.inputs_embeds;
    MISTRAL_EXT_CHECK(x.dim() == 3 && x.size(2) == config.hidden_size,
                      "inputs_embeds must have shape [batch, seq, {}], got {}",
                      config.hidden_size,
                      c10::str(x.sizes()));
  }
  const Shape shape = shape_of(inputs);
  MISTRAL_EXT_CHECK(shape.batch > 0 && shape.seq > 0,
                    "{} must have at least one row and one token, got shape {}",
                    has_ids ? "input_ids" : "inputs_embeds",
                    c10::str(has_ids ? inputs.input_ids.sizes() : inputs.inputs_embeds.sizes()));
  if (inputs.position_ids.defined()) {
    const auto& positions = inputs.position_ids;
    MISTRAL_EXT_CHECK(positions.dim() == 2 && positions.size(1) == shape.seq &&
                          (positions.size(0) == shape.batch || positions.size(0) == 1),
                      "position_ids must have shape [{} or 1, {}], got {}",
                      shape.batch,
                      shape.seq,
                      c10::str(positions.sizes()));
    MISTRAL_EXT_CHECK(positions.scalar_type() == at::kLong || positions.scalar_type() == at::kInt,
                      "position_ids must be int64 or int32, got {}",
                      c10::toString(positions.scalar_type()));
  }
  if (inputs.cache != nullptr) check_cache(*inputs.cache, config, shape.batch);
  const int64_t heads = config.num_attention_heads;
  if (inputs.attention_mask.defined()) check_attention_mask(inputs, shape, heads);
  if (inputs.qk_mask.defined()) check_qk_mask(inputs, shape, heads);
}

namespace {

// Looked at before any layer runs, so that nothing has entered the cache when it fails.
void check_keys(const at::Tensor& mask, int64_t keys) {
  MISTRAL_EXT_CHECK(mask.size(3) == keys || mask.size(3) == 1,
                    "attention_mask of 4 dimensions must have {} keys (or 1), got {}",
                    keys,
                    c10::str(mask.sizes()));
}

}  // namespace

layers::Visibility plan_visibility(const ModelInputs& inputs,
                                   int64_t window,
                                   const cache::KVCacheLayer* layer,
                                   bool differentiable) {
  const Shape shape = shape_of(inputs);
  const auto extent = layer == nullptr ? cache::KeyExtent{0, shape.seq, 0}
                                       : layer->extent(shape.seq, differentiable);
  const auto mask = inputs.attention_mask.defined()
                        ? inputs.attention_mask.to(tokens(inputs).device())
                        : inputs.attention_mask;
  if (mask.defined() && mask.dim() == 4) {
    layers::Visibility plan;
    plan.is_causal = false;
    check_keys(mask, extent.length);
    plan.mask = in_slot_order(mask, extent.rotation);
    return plan;
  }
  // One query sees all the keys it is given: the causal rule and the window are already in them.
  layers::Visibility plan;
  plan.is_causal = shape.seq > 1;
  if (extent.length > window && extent.rotation == 0) plan.sliding_window = window;
  if (inputs.qk_mask.defined()) {
    plan.is_causal = false;
    const auto visible = inputs.qk_mask.to(tokens(inputs).device());
    plan.mask =
        in_slot_order(visible.narrow(3, extent.first_position, extent.length), extent.rotation);
  } else if (mask.defined()) {
    const auto visible = mask.narrow(1, extent.first_position, extent.length);
    if (!sees_every_token(visible)) {
      plan.mask = in_slot_order(visible.to(at::kBool), extent.rotation);
    }
  } else if (inputs.position_ids.defined() && layer == nullptr && !inputs.ignore_packing) {
    plan.sequence_ids = packed_sequence_ids(inputs.position_ids);
  }
  return plan;
}

}  // namespace mistral_ext::models
