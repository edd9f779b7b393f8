#include "mistral_ext/generation/feeder.h"

#include <ATen/ops/ones.h>

#include <algorithm>

#include "mistral_ext/generation/rank_agreement.h"

namespace mistral_ext::generation {
namespace {

// New tokens the cache has room for from the start; beyond, it doubles. A generous max_length thus
// costs no memory that is not used.
constexpr int64_t kReservedTokens = 512;

}  // namespace

Feeder::Feeder(models::MistralForCausalLM& model,
               const Prompt& prompt,
               cache::KVCache* cache,
               const Callbacks& callbacks)
    : model_(model), prompt_(prompt), cache_(cache), callbacks_(callbacks), steps_(model, prompt) {
  if (cache_ == nullptr) {
    own_cache_ = std::make_unique<cache::KVCache>(model.config());
    cache_ = own_cache_.get();
  }
  const int64_t new_tokens = prompt.max_length - prompt.sequences.size(1);
  cache_->reserve(prompt.past + prompt.fed + std::min(new_tokens - 1, kReservedTokens));
  if (prompt.attention_mask.defined()) {
    mask_.emplace(prompt.attention_mask);
    visible_ = at::ones({1}, prompt.attention_mask.options());
  }
}

at::Tensor Feeder::feed_prompt(int64_t chunk_size) {
  if (chunk_size == 0) chunk_size = prompt_.fed;
  int64_t begin = 0;
  for (; begin + chunk_size < prompt_.fed; begin += chunk_size) {
    if (any_rank(callbacks_.stop.stop_requested(), model_)) return {};
    model_.model().forward(prompt_part(begin, chunk_size));
    interruption_point();
  }
  if (any_rank(callbacks_.stop.stop_requested(), model_)) return {};
  const auto logits = last_logits(prompt_part(begin, prompt_.fed - begin));
  if (prompt_.position_ids.defined()) {
    // Of its own memory: it counts on in place.
    position_ = prompt_.position_ids.narrow(1, prompt_.fed - 1, 1).clone();
  }
  return logits;
}

at::Tensor Feeder::feed(const at::Tensor& tokens) {
  if (auto logits = steps_.logits(*cache_, tokens.squeeze(1)); logits.defined()) {
    count_on(1);
    interruption_point();
    return logits;
  }
  models::ModelInputs inputs;
  inputs.ranks_agree = true;
  inputs.input_ids = tokens;
  inputs.cache = cache_;
  count_on(1);
  if (mask_) inputs.attention_mask = mask_->all();
  inputs.position_ids = position_;
  return last_logits(inputs);
}

at::Tensor Feeder::feed_likeliest(const at::Tensor& tokens,
                                  const at::Tensor& stopped,
                                  const GenerationConfig& config,
                                  int64_t count,
                                  const std::function<bool()>& go_on) {
  auto made = steps_.likeliest(*cache_, tokens.squeeze(1), stopped, config, count, go_on);
  if (made.defined()) count_on(made.size(1));
  return made;
}

// So many tokens of each row more, all of them visible.
void Feeder::count_on(int64_t tokens) {
  if (mask_) mask_->append_all(visible_.expand({mask_->all().size(0), tokens}));
  if (position_.defined()) position_.add_(tokens);
}

void Feeder::repeat_rows(int64_t repeats) {
  if (repeats == 1) return;
  steps_.repeat_rows(repeats);
  cache_->repeat_rows(repeats);
  if (mask_) {
    const auto rows = mask_->all().repeat_interleave(repeats, 0);
    mask_.emplace(rows);
  }
  if (position_.defined() && position_.size(0) > 1) {
    position_ = position_.repeat_interleave(repeats, 0);
  }
}

models::ModelInputs Feeder::prompt_part(int64_t begin, int64_t count) {
  models::ModelInputs inputs;
  inputs.ranks_agree = true;
  inputs.cache = cache_;
  if (prompt_.inputs_embeds.defined()) {
    inputs.inputs_embeds = prompt_.inputs_embeds.narrow(1, begin, count);
  } else {
    inputs.input_ids = prompt_.input_ids.narrow(1, begin, count);
  }
  if (mask_) inputs.attention_mask = mask_->first(prompt_.past + begin + count);
  if (prompt_.position_ids.defined()) {
    inputs.position_ids = prompt_.position_ids.narrow(1, begin, count);
  }
  return inputs;
}

at::Tensor Feeder::last_logits(const models::ModelInputs& inputs) {
  auto logits = model_.forward(inputs, /*logits_to_keep=*/1).logits.select(1, 0);
  interruption_point();
  return logits;
}

void Feeder::interruption_point() {
  if (callbacks_.check_interrupt) callbacks_.check_interrupt();
}

}  // namespace mistral_ext::generation
