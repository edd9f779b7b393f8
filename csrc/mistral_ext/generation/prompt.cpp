#include "mistral_ext/generation/prompt.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/all.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "mistral_ext/core/check.h"
#include "mistral_ext/models/visibility_plan.h"

namespace mistral_ext::generation {
namespace {

void check_token_ids(const at::Tensor& ids, int64_t vocab_size) {
  MISTRAL_EXT_CHECK(
      ids.dim() == 2 && ids.size(0) > 0,
      "generate: input_ids must have shape [batch, prompt] with at least one row, got "
      "{}",
      c10::str(ids.sizes()));
  MISTRAL_EXT_CHECK(ids.scalar_type() == at::kLong || ids.scalar_type() == at::kInt,
                    "generate: input_ids must be int64 or int32, got {}",
                    c10::toString(ids.scalar_type()));
  if (ids.numel() == 0) return;
  const auto [low, high] = at::aminmax(ids);
  const int64_t lowest = low.item().toLong();
  const int64_t highest = high.item().toLong();
  MISTRAL_EXT_CHECK(lowest >= 0 && highest < vocab_size,
                    "generate: input_ids must be in [0, {}), got {}",
                    vocab_size,
                    lowest < 0 ? lowest : highest);
}

void check_embeds(const at::Tensor& embeds,
                  int64_t batch,
                  const models::MistralForCausalLM& model) {
  const int64_t hidden_size = model.config().hidden_size;
  MISTRAL_EXT_CHECK(embeds.dim() == 3 && embeds.size(0) == batch && embeds.size(2) == hidden_size,
                    "generate: inputs_embeds must have shape [{}, tokens, {}], got {}",
                    batch,
                    hidden_size,
                    c10::str(embeds.sizes()));
  MISTRAL_EXT_CHECK(embeds.scalar_type() == model.dtype(),
                    "generate: inputs_embeds must have the model's dtype {}, got {}",
                    c10::toString(model.dtype()),
                    c10::toString(embeds.scalar_type()));
}

int64_t choose_max_length(const GenerationConfig& config, int64_t prompt) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  if (config.max_new_tokens) return prompt + std::min(*config.max_new_tokens, kMost - prompt);
  const int64_t max_length = config.max_length.value_or(0);
  MISTRAL_EXT_CHECK(max_length > prompt,
                    "generate: max_length must be beyond the prompt's {} tokens, got {}",
                    prompt,
                    max_length);
  return max_length;
}

// Tokens of the prompt that are in the cache already.
int64_t cached_columns(const GenerateInputs& inputs, int64_t given, int64_t past) {
  const bool new_tokens_alone =
      !inputs.inputs_embeds.defined() && inputs.attention_mask.defined() &&
      inputs.attention_mask.dim() == 2 && inputs.attention_mask.size(1) != given;
  return new_tokens_alone ? 0 : past;
}

// Counts the tokens of each row; a padded place has position 0.
at::Tensor positions_of(const at::Tensor& mask) {
  return mask.to(at::kLong).cumsum(1).sub_(1).masked_fill_(mask.logical_not(), 0);
}

void add_mask_and_positions(const GenerateInputs& inputs,
                            const at::Device& device,
                            Prompt& prompt) {
  const int64_t length = prompt.past + prompt.fed;
  if (inputs.attention_mask.defined()) {
    const auto& mask = inputs.attention_mask;
    MISTRAL_EXT_CHECK(mask.dim() == 2 && mask.size(0) == prompt.batch && mask.size(1) == length,
                      "generate: attention_mask must have shape [{}, {}] ({} cached and {} new "
                      "tokens), got {}",
                      prompt.batch,
                      length,
                      prompt.past,
                      prompt.fed,
                      c10::str(mask.sizes()));
    const auto is_token = mask.to(device).ne(0);
    if (!at::all(is_token).item<bool>()) prompt.attention_mask = is_token;
  }
  if (inputs.position_ids.defined()) {
    const auto& positions = inputs.position_ids;
    MISTRAL_EXT_CHECK(positions.dim() == 2 && positions.size(1) >= prompt.fed &&
                          (positions.size(0) == prompt.batch || positions.size(0) == 1),
                      "generate: position_ids must have shape [{} or 1, at least {}], got {}",
                      prompt.batch,
                      prompt.fed,
                      c10::str(positions.sizes()));
    prompt.position_ids = positions.to(device, at::kLong);
  } else if (prompt.attention_mask.defined()) {
    prompt.position_ids = positions_of(prompt.attention_mask);
  }
  if (!prompt.position_ids.defined()) return;
  auto& positions = prompt.position_ids;
  positions = positions.narrow(1, positions.size(1) - prompt.fed, prompt.fed);
  const auto consecutive = at::arange(prompt.past, length, positions.options());
  if (at::all(positions == consecutive).item<bool>()) positions = at::Tensor();
}

}  // namespace

Prompt prepare_prompt(const models::MistralForCausalLM& model,
                      const GenerateInputs& inputs,
                      const GenerationConfig& config) {
  const bool has_embeds = inputs.inputs_embeds.defined();
  MISTRAL_EXT_CHECK(inputs.input_ids.defined() || has_embeds,
                    "generate: input_ids or inputs_embeds must be given, got neither");
  const int64_t vocab_size = model.config().vocab_size;
  const auto device = model.device();
  MISTRAL_EXT_CHECK(!device.is_meta(),
                    "generate: model must have its weights, got parameters on the meta device");
  Prompt prompt;
  if (inputs.input_ids.defined()) {
    check_token_ids(inputs.input_ids, vocab_size);
    prompt.sequences = inputs.input_ids.to(device, at::kLong);
  } else {
    const int64_t rows = inputs.inputs_embeds.dim() == 0 ? 0 : inputs.inputs_embeds.size(0);
    prompt.sequences = at::empty({rows, 0}, at::TensorOptions().dtype(at::kLong).device(device));
  }
  prompt.batch = prompt.sequences.size(0);
  if (has_embeds) check_embeds(inputs.inputs_embeds, prompt.batch, model);
  MISTRAL_EXT_CHECK(prompt.batch > 0,
                    "generate: inputs_embeds must have at least one row, got shape {}",
                    c10::str(inputs.inputs_embeds.sizes()));
  prompt.max_length = choose_max_length(config, prompt.sequences.size(1));

  if (inputs.cache != nullptr) models::check_cache(*inputs.cache, model.config(), prompt.batch);
  prompt.past = inputs.cache == nullptr ? 0 : inputs.cache->seen();
  const int64_t given = has_embeds ? inputs.inputs_embeds.size(1) : prompt.sequences.size(1);
  const int64_t cached = cached_columns(inputs, given, prompt.past);
  prompt.fed = given - cached;
  MISTRAL_EXT_CHECK(prompt.fed > 0,
                    "generate: {} must have tokens beyond the {} in the cache, got {}",
                    has_embeds ? "inputs_embeds" : "input_ids",
                    cached,
                    given);
  if (has_embeds) {
    prompt.inputs_embeds = inputs.inputs_embeds.to(device).narrow(1, cached, prompt.fed);
  } else {
    prompt.input_ids = prompt.sequences.narrow(1, cached, prompt.fed);
  }
  add_mask_and_positions(inputs, device, prompt);
  return prompt;
}

}  // namespace mistral_ext::generation
