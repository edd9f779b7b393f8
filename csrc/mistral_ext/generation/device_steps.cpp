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

// How many tokens each row begins with that are hidden; none where others are hidden as well.
std::optional<std::vector<int64_t>> left_padding(const at::Tensor& mask, int64_t batch) {
  std::vector<int64_t> padding(batch);
  if (!mask.defined()) return padding;
  const auto host = mask.cpu().contiguous();  // [batch, tokens]
  const bool* visible = host.const_data_ptr<bool>();
  for (int64_t& hidden : padding) {
    const bool* const end = visible + mask.size(1);
    const bool* const first = std::find(visible, end, true);
    if (std::find(first, end, false) != end) return std::nullopt;
    hidden = first - visible;
    visible = end;
  }
  return padding;
}

std::vector<int64_t> next_positions(const Prompt& prompt) {
  std::vector<int64_t> positions(prompt.batch, prompt.past + prompt.fed);
  if (!prompt.position_ids.defined()) return positions;
  const auto last = prompt.position_ids.select(1, prompt.fed - 1).expand({prompt.batch}).cpu();
  const auto host = last.contiguous();
  std::transform(host.const_data_ptr<int64_t>(),
                 host.const_data_ptr<int64_t>() + prompt.batch,
                 positions.begin(),
                 [](int64_t position) { return position + 1; });
  return positions;
}

}  // namespace

DeviceSteps::DeviceSteps(models::MistralForCausalLM& model,
                         const GenerationConfig& config,
                         const Prompt& prompt)
    : pool_(model.token_steps()),
      config_(config),
      batch_(prompt.batch),
      prompt_tokens_(prompt.past + prompt.fed) {
  const bool shows_tokens_alone = !config.output_scores && !config.output_logits;
  if (!shows_tokens_alone || !takes_the_likeliest(config, prompt.sequences.size(1))) return;
  const auto padding = left_padding(prompt.attention_mask, batch_);
  if (!padding) return;
  taken_ = pool_.take(model, batch_);
  padding_ = *padding;
  positions_ = next_positions(prompt);
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
  rows.positions = positions_;
  for (int64_t& position : rows.positions) position += cache.seen() - prompt_tokens_;
  rows.padding = padding_;
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
