#include "mistral_ext/generation/beam_search.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/beam_state.h"
#include "mistral_ext/generation/feeder.h"
#include "mistral_ext/generation/highest.h"
#include "mistral_ext/generation/logits_processor.h"
#include "mistral_ext/generation/rank_agreement.h"
#include "mistral_ext/generation/sampler.h"

namespace mistral_ext::generation {
namespace {

// Tokens that each beam of a prompt may offer: enough that one remains if the others are ends.
int64_t tokens_a_beam(const GenerationConfig& config) {
  return std::max<int64_t>(2, std::ssize(config.eos_token_ids) + 1);
}

// Picks a step's continuations out of all beams of a prompt together.
class ContinuationPicker {
 public:
  ContinuationPicker(const GenerationConfig& config,
                     const std::optional<at::Generator>& generator,
                     int64_t continuations,
                     const at::Device& device)
      : do_sample_(config.do_sample),
        continuations_(continuations),
        device_(device),
        generator_(choose_generator(config, generator, device)) {}

  // scores: fp32 [batch, num_beams * vocab_size], contiguous. Drawn ones are in the order in which
  // they were drawn.
  Highest::Found pick(const at::Tensor& scores) {
    if (!do_sample_) return highest_.find(scores, continuations_, device_);
    const auto drawn =
        at::multinomial(at::softmax(scores, -1), continuations_, /*replacement=*/false, generator_);
    return {at::gather(scores, 1, drawn), drawn};
  }

 private:
  bool do_sample_;
  int64_t continuations_;
  at::Device device_;
  std::optional<at::Generator> generator_;
  Highest highest_;
};

// bool [batch * continuations], on the CPU: which of those proposed end a sequence.
//   is_last: all do.
at::Tensor find_ended(const models::MistralForCausalLM& model,
                      const BeamState& state,
                      const GenerationConfig& config,
                      const Callbacks& callbacks,
                      bool is_last) {
  const auto tokens = state.proposed_tokens();
  const auto on_host = tokens.cpu();
  const auto* token = on_host.const_data_ptr<int64_t>();
  auto ended = at::empty(tokens.sizes(), at::kBool);
  auto* ends = ended.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    ends[i] =
        is_last || std::ranges::find(config.eos_token_ids, token[i]) != config.eos_token_ids.end();
  }
  at::Tensor rows;
  if (callbacks.on_step) rows = callbacks.on_step({tokens, state.proposed_sequences()});
  rows = rows_of_any_rank(rows, ended.numel(), model);
  if (!rows.defined()) return ended;
  MISTRAL_EXT_CHECK(rows.sizes() == ended.sizes() && rows.scalar_type() == at::kBool,
                    "beam_search: on_step must return bool {}, got {} {}",
                    c10::str(ended.sizes()),
                    c10::toString(rows.scalar_type()),
                    c10::str(rows.sizes()));
  return ended.logical_or_(rows.cpu());
}

// Each row `repeats` times, one after another.
GenerateInputs repeat_rows(GenerateInputs inputs, int64_t repeats) {
  const auto repeat = [repeats](at::Tensor& rows) {
    if (rows.defined() && rows.dim() > 0) rows = rows.repeat_interleave(repeats, 0);
  };
  repeat(inputs.input_ids);
  repeat(inputs.inputs_embeds);
  repeat(inputs.attention_mask);
  const auto& positions = inputs.position_ids;  // one row may serve all
  if (positions.defined() && positions.dim() > 0 && positions.size(0) > 1) {
    repeat(inputs.position_ids);
  }
  return inputs;
}

// Cancelled before the first step.
BeamSearchOutput nothing_made(const at::Tensor& prompts, int64_t num_return_sequences) {
  BeamSearchOutput output;
  output.sequences = prompts.repeat_interleave(num_return_sequences, 0);
  const int64_t rows = output.sequences.size(0);
  output.sequences_scores = at::zeros({rows}, prompts.options().dtype(at::kFloat));
  output.beam_indices = at::empty({rows, 0}, prompts.options().dtype(at::kInt));
  output.cancelled = true;
  return output;
}

// Whether the cache holds tokens of each beam, not of each prompt.
bool beams_have_rows(const GenerateInputs& inputs, int64_t num_beams) {
  const auto& rows = inputs.input_ids.defined() ? inputs.input_ids : inputs.inputs_embeds;
  return inputs.cache != nullptr && inputs.cache->seen() > 0 && rows.defined() && rows.dim() > 0 &&
         inputs.cache->batch_size() == rows.size(0) * num_beams;
}

}  // namespace

BeamSearchOutput beam_search(models::MistralForCausalLM& model,
                             const GenerateInputs& inputs,
                             const GenerationConfig& config,
                             const BeamSearchConfig& beams,
                             const Callbacks& callbacks,
                             const std::optional<at::Generator>& generator) {
  const at::NoGradGuard no_grad;
  agree_on_start(model, inputs, config, &beams, generator);
  config.validate();
  beams.validate();
  const int64_t num_beams = beams.num_beams;
  const bool have_rows = beams_have_rows(inputs, num_beams);
  const Prompt prompt =
      prepare_prompt(model, have_rows ? repeat_rows(inputs, num_beams) : inputs, config);
  // One row of each prompt.
  const auto prompts = prompt.sequences.slice(0, 0, std::nullopt, have_rows ? num_beams : 1);
  const int64_t batch = prompts.size(0);
  const int64_t vocab_size = model.config().vocab_size;
  MISTRAL_EXT_CHECK(tokens_a_beam(config) <= vocab_size,
                    "beam_search: eos_token_ids must be fewer than the vocabulary's {} tokens, got "
                    "{}",
                    vocab_size,
                    config.eos_token_ids.size());
  const int64_t continuations = tokens_a_beam(config) * num_beams;
  const auto device = model.device();
  const LogitsProcessor processor(config,
                                  {.prompt_length = prompt.sequences.size(1),
                                   .max_length = prompt.max_length,
                                   .vocab_size = vocab_size,
                                   .device = device,
                                   .min_tokens_to_keep = tokens_a_beam(config)});
  ContinuationPicker picker(config, generator, continuations, device);
  BeamState state(beams, prompts, continuations, prompt.max_length, vocab_size, device);

  // Beams that come with rows of their own may differ from the first token on.
  const int64_t shared = have_rows ? 0 : prompt.past + prompt.fed;
  Feeder feeder(model, prompt, inputs.cache, callbacks);
  LengthWatch watch(model.config(), callbacks);
  BeamSearchOutput output;
  auto logits = feeder.feed_prompt(config.prefill_chunk_size);
  if (!logits.defined()) return nothing_made(prompts, beams.num_return_sequences);
  if (!have_rows) {
    logits = logits.repeat_interleave(num_beams, 0);
    feeder.repeat_rows(num_beams);
  }
  for (;; logits = feeder.feed(state.last_tokens())) {
    logits = logits.to(at::kFloat);
    if (config.output_logits) output.logits.push_back(logits);
    const auto tokens = processor.reads_tokens() ? state.sequences() : at::Tensor();
    auto scores = processor.process(tokens, state.length(), at::log_softmax(logits, -1));
    if (config.do_sample) scores = processor.warp(scores);
    scores = processor.finish(scores);
    if (config.output_scores) output.scores.push_back(scores);

    scores = scores.view({batch, num_beams, vocab_size}) + state.scores().unsqueeze(-1);
    state.propose(picker.pick(scores.view({batch, num_beams * vocab_size})));
    const bool is_longest = state.length() + 1 >= prompt.max_length;
    output.cancelled = !is_longest && any_rank(callbacks.stop.stop_requested(), model);
    state.decide(find_ended(model, state, config, callbacks, is_longest || output.cancelled));
    ++output.steps;
    if (state.length() < prompt.max_length) watch.reached(state.length());
    // A cache of its own is not needed any more.
    if (state.is_done() && inputs.cache == nullptr) break;
    feeder.cache().move_rows(state.row_moves(shared));
    if (state.is_done()) break;
  }
  output.sequences = state.best_sequences(config.pad_token_id.value_or(-1));
  output.sequences_scores = state.best_scores();
  output.beam_indices = state.best_beam_indices();
  return output;
}

}  // namespace mistral_ext::generation
