#include "mistral_ext/generation/rank_agreement.h"

#include <ATen/Context.h>
#include <ATen/ops/zeros.h>

#include <bit>
#include <mutex>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/agreement.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::generation {
namespace {

using parallel::Digest;

void add(Digest& digest, double value) { digest.add(std::bit_cast<int64_t>(value)); }

void add(Digest& digest, const std::vector<int64_t>& values) {
  digest.add(std::ssize(values));
  for (const int64_t value : values) digest.add(value);
}

// Everything that changes which tokens are made.
void add(Digest& digest, const GenerationConfig& config) {
  for (const int64_t value : {config.max_length.value_or(-1),
                              config.max_new_tokens.value_or(-1),
                              config.min_length,
                              config.min_new_tokens,
                              config.pad_token_id.value_or(-1),
                              config.no_repeat_ngram_size,
                              config.forced_bos_token_id.value_or(-1),
                              config.begin_index.value_or(-1),
                              config.top_k,
                              config.prefill_chunk_size,
                              static_cast<int64_t>(config.seed.has_value()),
                              static_cast<int64_t>(config.seed.value_or(0)),
                              static_cast<int64_t>(config.do_sample),
                              static_cast<int64_t>(config.remove_invalid_values),
                              static_cast<int64_t>(config.renormalize_logits)}) {
    digest.add(value);
  }
  for (const double value : {config.repetition_penalty,
                             config.temperature,
                             config.top_h.value_or(-1.0),
                             config.top_p,
                             config.min_p,
                             config.typical_p,
                             config.epsilon_cutoff,
                             config.eta_cutoff}) {
    add(digest, value);
  }
  if (config.exponential_decay_length_penalty) {
    digest.add(config.exponential_decay_length_penalty->start);
    add(digest, config.exponential_decay_length_penalty->factor);
  }
  digest.add(std::ssize(config.sequence_bias));
  for (const auto& [tokens, bias] : config.sequence_bias) {
    add(digest, tokens);
    add(digest, bias);
  }
  digest.add(std::ssize(config.bad_words_ids));
  for (const auto& words : config.bad_words_ids) add(digest, words);
  for (const auto* tokens : {&config.eos_token_ids,
                             &config.forced_eos_token_ids,
                             &config.suppress_tokens,
                             &config.begin_suppress_tokens}) {
    add(digest, *tokens);
  }
}

void add(Digest& digest, const BeamSearchConfig& beams) {
  digest.add(beams.num_beams).add(beams.num_return_sequences);
  add(digest, beams.length_penalty);
  digest.add(static_cast<int64_t>(beams.early_stopping));
}

void share_state(at::Generator generator,
                 const at::Device& device,
                 const parallel::Context& context) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  auto state = generator.get_state().to(device);
  parallel::broadcast_(state, context);
  generator.set_state(state.cpu());
}

}  // namespace

void agree_on_start(const models::MistralForCausalLM& model,
                    const GenerateInputs& inputs,
                    const GenerationConfig& config,
                    const BeamSearchConfig* beams,
                    const std::optional<at::Generator>& generator) {
  const auto& context = model.parallel();
  if (!context.is_sharded()) return;
  const auto tokens = Digest()
                          .add(inputs.input_ids)
                          .add(inputs.inputs_embeds)
                          .add(inputs.attention_mask)
                          .add(inputs.position_ids)
                          .add(inputs.cache == nullptr ? -1 : inputs.cache->seen());
  Digest options;
  add(options, config);
  if (beams != nullptr) add(options, *beams);
  parallel::check_agreement(
      {{"the prompt", tokens.value()}, {"the generation config", options.value()}},
      model.device(),
      context);
  if (!config.do_sample || config.seed) return;
  const auto device = model.device();
  share_state(
      generator ? *generator : at::globalContext().defaultGenerator(device), device, context);
}

bool any_rank(bool says_so, const models::MistralForCausalLM& model) {
  return parallel::any_rank(says_so, model.device(), model.parallel());
}

at::Tensor rows_of_any_rank(const at::Tensor& stopped,
                            int64_t rows,
                            const models::MistralForCausalLM& model) {
  if (!model.parallel().is_sharded()) return stopped;
  const auto options = at::TensorOptions().dtype(at::kInt).device(model.device());
  auto any = at::zeros({rows}, options);
  if (stopped.defined() && stopped.numel() == rows) any.copy_(stopped);
  parallel::all_reduce_max_(any, model.parallel());
  // What does not fit is named by who reads it.
  return stopped.defined() && stopped.numel() != rows ? stopped : any.to(at::kBool);
}

}  // namespace mistral_ext::generation
