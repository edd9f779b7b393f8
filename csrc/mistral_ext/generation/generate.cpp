#include "mistral_ext/generation/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/growing_columns.h"
#include "mistral_ext/generation/sampler.h"

namespace mistral_ext::generation {
namespace {

// New tokens the cache has room for from the start; beyond, it doubles. A generous max_length thus
// costs no memory that is not used.
constexpr int64_t kReservedTokens = 512;

// Feeds the model: the prompt, then a token at a time.
class Feeder {
 public:
  Feeder(models::MistralForCausalLM& model,
         const Prompt& prompt,
         cache::KVCache& cache,
         const std::function<void()>& check_interrupt)
      : model_(model), prompt_(prompt), cache_(cache), check_interrupt_(check_interrupt) {
    if (prompt.attention_mask.defined()) {
      mask_.emplace(prompt.attention_mask);
      visible_ = at::ones({1}, prompt.attention_mask.options());
    }
  }

  // Each returns the logits of the last position, [batch, vocab_size].
  at::Tensor feed_prompt(int64_t chunk_size) {
    if (chunk_size == 0) chunk_size = prompt_.fed;
    int64_t begin = 0;
    for (; begin + chunk_size < prompt_.fed; begin += chunk_size) {
      model_.model().forward(prompt_part(begin, chunk_size));
      interruption_point();
    }
    const auto logits = last_logits(prompt_part(begin, prompt_.fed - begin));
    if (prompt_.position_ids.defined()) {
      // Of its own memory: it counts on in place.
      position_ = prompt_.position_ids.narrow(1, prompt_.fed - 1, 1).clone();
    }
    return logits;
  }

  // tokens: int64 [batch, 1]
  at::Tensor feed(const at::Tensor& tokens) {
    models::ModelInputs inputs;
    inputs.input_ids = tokens;
    inputs.cache = &cache_;
    if (mask_) {
      mask_->append(visible_);
      inputs.attention_mask = mask_->all();
    }
    if (position_.defined()) inputs.position_ids = position_.add_(1);
    return last_logits(inputs);
  }

 private:
  models::ModelInputs prompt_part(int64_t begin, int64_t count) {
    models::ModelInputs inputs;
    inputs.cache = &cache_;
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

  at::Tensor last_logits(const models::ModelInputs& inputs) {
    auto logits = model_.forward(inputs, /*logits_to_keep=*/1).logits.select(1, 0);
    interruption_point();
    return logits;
  }

  void interruption_point() {
    if (check_interrupt_) check_interrupt_();
  }

  models::MistralForCausalLM& model_;
  const Prompt& prompt_;
  cache::KVCache& cache_;
  const std::function<void()>& check_interrupt_;
  std::optional<GrowingColumns> mask_;
  at::Tensor visible_;   // bool [1]
  at::Tensor position_;  // int64 [batch|1, 1], of the last token fed
};

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

void warn_beyond_positions(const models::MistralForCausalLM& model, int64_t length) {
  const int64_t most = model.config().max_position_embeddings;
  if (length <= most) return;
  TORCH_WARN_ONCE("generate: the sequence has grown beyond the model's max_position_embeddings (",
                  most,
                  "); what follows may be of poor quality");
}

}  // namespace

GenerateOutput generate(models::MistralForCausalLM& model,
                        const GenerateInputs& inputs,
                        const GenerationConfig& config,
                        const Callbacks& callbacks,
                        const std::optional<at::Generator>& generator) {
  // Not inference mode, whose tensors no later pass with gradients could take from the cache.
  const at::NoGradGuard no_grad;
  config.validate();
  const Prompt prompt = prepare_prompt(model, inputs, config);
  const int64_t prompt_length = prompt.sequences.size(1);
  Sampler sampler(config, generator, prompt_length, model.device());

  std::unique_ptr<cache::KVCache> own_cache;
  if (inputs.cache == nullptr) own_cache = std::make_unique<cache::KVCache>(model.config());
  cache::KVCache& cache = inputs.cache == nullptr ? *own_cache : *inputs.cache;
  cache.reserve(prompt.past + prompt.fed +
                std::min(prompt.max_length - prompt_length - 1, kReservedTokens));

  Feeder feeder(model, prompt, cache, callbacks.check_interrupt);
  StopTracker tracker(config, prompt.batch);
  GrowingColumns sequences(prompt.sequences);
  GenerateOutput output;
  for (auto logits = feeder.feed_prompt(config.prefill_chunk_size);;
       logits = feeder.feed(sequences.last())) {
    logits = logits.to(at::kFloat);
    if (config.output_logits) output.logits.push_back(logits);
    at::Tensor* const scores = config.output_scores ? &output.scores.emplace_back() : nullptr;
    const auto tokens = tracker.pad_and_mark(sampler.next_tokens(sequences.all(), logits, scores));
    sequences.append(tokens);
    ++output.steps;
    if (callbacks.on_step) {
      const auto rows = callbacks.on_step({tokens, sequences.all()});
      if (rows.defined()) tracker.mark(rows);
    }
    if (tracker.all_stopped() || sequences.length() >= prompt.max_length) break;
    warn_beyond_positions(model, sequences.length());
  }
  output.sequences = sequences.all().contiguous();
  output.stopped = tracker.stopped();
  return output;
}

}  // namespace mistral_ext::generation
