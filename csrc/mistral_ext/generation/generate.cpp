#include "mistral_ext/generation/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/feeder.h"
#include "mistral_ext/generation/growing_columns.h"
#include "mistral_ext/generation/rank_agreement.h"
#include "mistral_ext/generation/sampler.h"

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

// Which rows have ended.
class StopTracker {
 public:
  StopTracker(const GenerationConfig& config, int64_t batch)
      : eos_token_ids_(config.eos_token_ids),
        pad_token_id_(config.pad_token_id.value_or(0)),
        stopped_(at::zeros({batch}, at::kBool)) {}

  // tokens: int64 [batch]. Pads the rows that had ended and marks those that end now.
  at::Tensor pad_and_mark(const at::Tensor& tokens) {
    if (eos_token_ids_.empty()) return tokens;
    const auto host = tokens.cpu();  // the same tensor on the CPU
    auto* token = host.mutable_data_ptr<int64_t>();
    bool* stopped = stopped_.mutable_data_ptr<bool>();
    bool padded = false;
    for (int64_t i = 0; i < stopped_.numel(); ++i) {
      if (stopped[i]) {
        token[i] = pad_token_id_;
        padded = true;
      } else {
        stopped[i] = std::ranges::find(eos_token_ids_, token[i]) != eos_token_ids_.end();
      }
    }
    return padded ? host.to(tokens.device()) : tokens;
  }

  // rows: bool [batch]
  void mark(const at::Tensor& rows) {
    MISTRAL_EXT_CHECK(rows.sizes() == stopped_.sizes() && rows.scalar_type() == at::kBool,
                      "generate: on_step must return bool {}, got {} {}",
                      c10::str(stopped_.sizes()),
                      c10::toString(rows.scalar_type()),
                      c10::str(rows.sizes()));
    stopped_.logical_or_(rows.cpu());
  }

  bool all_stopped() const {
    const bool* stopped = stopped_.const_data_ptr<bool>();
    return std::all_of(stopped, stopped + stopped_.numel(), [](bool row) { return row; });
  }

  const at::Tensor& stopped() const { return stopped_; }

 private:
  std::vector<int64_t> eos_token_ids_;
  int64_t pad_token_id_;
  at::Tensor stopped_;  // bool [batch], on the CPU
};

void check_pad_token(const GenerationConfig& config, int64_t batch, int64_t vocab_size) {
  if (config.eos_token_ids.empty() || batch == 1) return;
  MISTRAL_EXT_CHECK(
      config.pad_token_id.has_value(),
      "generate: pad_token_id must be given with eos_token_ids and a batch of {}, got "
      "none",
      batch);
  const int64_t pad_token_id = config.pad_token_id.value_or(-1);
  MISTRAL_EXT_CHECK(pad_token_id >= 0 && pad_token_id < vocab_size,
                    "generate: pad_token_id must be in [0, {}), got {}",
                    vocab_size,
                    pad_token_id);
}

}  // namespace

GenerateOutput generate(models::MistralForCausalLM& model,
                        const GenerateInputs& inputs,
                        const GenerationConfig& config,
                        const Callbacks& callbacks,
                        const std::optional<at::Generator>& generator) {
  // Not inference mode, whose tensors no later pass with gradients could take from the cache.
  const at::NoGradGuard no_grad;
  agree_on_start(model, inputs, config, /*beams=*/nullptr, generator);
  config.validate();
  const Prompt prompt = prepare_prompt(model, inputs, config);
  check_pad_token(config, prompt.batch, model.config().vocab_size);
  Sampler sampler(config,
                  generator,
                  {.prompt_length = prompt.sequences.size(1),
                   .max_length = prompt.max_length,
                   .vocab_size = model.config().vocab_size,
                   .device = model.device()});

  Feeder feeder(model, prompt, inputs.cache, callbacks);
  StopTracker tracker(config, prompt.batch);
  LengthWatch watch(model.config(), callbacks);
  GrowingColumns sequences(prompt.sequences);
  GenerateOutput output;
  // What follows new tokens. Returns whether they were the last.
  const auto ends_after = [&](const at::Tensor& tokens) {
    at::Tensor rows;
    if (callbacks.on_step) rows = callbacks.on_step({tokens, sequences.all()});
    rows = rows_of_any_rank(rows, prompt.batch, model);
    if (rows.defined()) tracker.mark(rows);
    if (sequences.length() >= prompt.max_length) return true;
    watch.reached(sequences.length());
    if (tracker.all_stopped()) return true;
    output.cancelled = any_rank(callbacks.stop.stop_requested(), model);
    return output.cancelled;
  };
  const auto go_on = [&] {
    if (callbacks.check_interrupt) callbacks.check_interrupt();
    return !callbacks.stop.stop_requested();
  };
  const bool is_greedy = !config.output_scores && !config.output_logits &&
                         takes_the_likeliest(config, prompt.sequences.size(1));
  for (auto logits = feeder.feed_prompt(config.prefill_chunk_size);;
       logits = feeder.feed(sequences.last())) {
    if (!logits.defined()) {
      output.cancelled = true;
      break;
    }
    logits = logits.to(at::kFloat);
    if (config.output_logits) output.logits.push_back(logits);
    at::Tensor* const scores = config.output_scores ? &output.scores.emplace_back() : nullptr;
    const auto tokens = tracker.pad_and_mark(sampler.next_tokens(sequences.all(), logits, scores));
    sequences.append(tokens);
    ++output.steps;
    bool ended = ends_after(tokens);
    while (!ended && is_greedy) {
      const int64_t count = callbacks.on_step ? 1 : prompt.max_length - sequences.length();
      const auto made =
          feeder.feed_likeliest(sequences.last(), tracker.stopped(), config, count, go_on);
      if (!made.defined()) break;
      sequences.append_all(made);
      output.steps += made.size(1);
      ended = ends_after(made.select(1, made.size(1) - 1));
    }
    if (ended) break;
  }
  output.sequences = sequences.all().contiguous();
  output.stopped = tracker.stopped();
  return output;
}

}  // namespace mistral_ext::generation
