#include "mistral_ext/generation/device_steps.h"

#include <algorithm>
#include <utility>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::generation {
namespace {

// Whether nothing changes the scores after the first token.
bool takes_the_likeliest(const GenerationConfig& config, int64_t prompt_length) {
  const bool ends_anywhere = config.eos_token_ids.empty() ||
                             (config.min_length <= prompt_length && config.min_new_tokens <= 1);
  return !config.do_sample && ends_anywhere && config.sequence_bias.empty() &&
         config.repetition_penalty == 1.0 && config.no_repeat_ngram_size == 0 &&
         config.bad_words_ids.empty() && config.forced_eos_token_ids.empty() &&
         !config.remove_invalid_values && !config.exponential_decay_length_penalty &&
         config.suppress_tokens.empty() && config.begin_suppress_tokens.empty() &&
         !config.renormalize_logits;
}

}  // namespace

DeviceSteps::DeviceSteps(models::MistralForCausalLM& model,
                         const GenerationConfig& config,
                         const Prompt& prompt)
    : pool_(model.token_steps()), config_(config), batch_(prompt.batch) {
  const bool shows_tokens_alone = !config.output_scores && !config.output_logits;
  const bool is_padded = prompt.attention_mask.defined() || prompt.position_ids.defined();
  if (shows_tokens_alone && !is_padded && takes_the_likeliest(config, prompt.sequences.size(1))) {
    taken_ = pool_.take(model, batch_);
  }
}

DeviceSteps::~DeviceSteps() {
  if (taken_) pool_.give_back(*std::move(taken_));
}

at::Tensor DeviceSteps::run(cache::KVCache& cache,
                            const at::Tensor& tokens,
                            const at::Tensor& stopped,
                            int64_t count,
                            const std::function<bool()>& go_on) {
  if (!taken_ || !taken_->steps) return {};
  auto& steps = *taken_->steps;
  bool* is_stopped = stopped.mutable_data_ptr<bool>();
  models::StepRows rows;
  rows.tokens = tokens;
  rows.stopped.resize(batch_);
  rows.eos_token_ids = config_.eos_token_ids;
  rows.pad_token_id = config_.pad_token_id.value_or(0);
  // Without ends nothing is padded: rows that a callback has stopped go on.
  const bool has_ends = !config_.eos_token_ids.empty();
  if (has_ends) rows.stopped.assign(is_stopped, is_stopped + batch_);
  if (!steps.serves(cache, rows)) return {};
  auto made = steps.run(cache, rows, count, go_on);
  if (has_ends) std::copy(rows.stopped.begin(), rows.stopped.end(), is_stopped);
  return made;
}

}  // namespace mistral_ext::generation
