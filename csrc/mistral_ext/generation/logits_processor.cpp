#include "mistral_ext/generation/logits_processor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/repeated_ngrams.h"
#include "mistral_ext/generation/warpers.h"

namespace mistral_ext::generation {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Those in the vocabulary, on the device.
at::Tensor known_tokens(std::vector<int64_t> token_ids, const LoopExtent& extent) {
  std::erase_if(token_ids, [&](int64_t token) { return token < 0 || token >= extent.vocab_size; });
  return token_ids.empty() ? at::Tensor() : at::tensor(token_ids, at::kLong).to(extent.device);
}

void check_known(const char* name,
                 const std::vector<int64_t>& token_ids,
                 const LoopExtent& extent) {
  for (const int64_t token : token_ids) {
    MISTRAL_EXT_CHECK(token >= 0 && token < extent.vocab_size,
                      "generate: {} must be in [0, {}), got {}",
                      name,
                      extent.vocab_size,
                      token);
  }
}

at::Tensor suppress(const at::Tensor& scores, const at::Tensor& token_ids) {
  return scores.index_fill(1, token_ids, kMinusInfinity);
}

std::vector<BiasedSequence> forbidden(const GenerationConfig& config) {
  std::vector<BiasedSequence> sequences;
  for (const auto& word : config.bad_words_ids) {
    const bool is_end = word.size() == 1 && std::ranges::find(config.eos_token_ids, word[0]) !=
                                                config.eos_token_ids.end();
    if (!is_end) sequences.push_back({word, kMinusInfinity});
  }
  return sequences;
}

// Before which no sequence ends.
int64_t least_length(const GenerationConfig& config, int64_t prompt_length) {
  if (config.min_new_tokens <= 0) return config.min_length;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  return std::max(config.min_length,
                  prompt_length + std::min(config.min_new_tokens, kMost - prompt_length));
}

std::vector<int64_t> forced_bos(const GenerationConfig& config) {
  if (!config.forced_bos_token_id) return {};
  return {*config.forced_bos_token_id};
}

}  // namespace

at::Tensor penalise_repetition(const at::Tensor& scores,
                               const at::Tensor& input_ids,
                               double penalty) {
  const auto seen = at::gather(scores, 1, input_ids);
  return at::scatter(scores, 1, input_ids, at::where(seen < 0, seen * penalty, seen / penalty));
}

LogitsProcessor::LogitsProcessor(const GenerationConfig& config, const LoopExtent& extent)
    : config_(config),
      extent_(extent),
      min_length_(least_length(config, extent.prompt_length)),
      begin_index_(config.begin_index.value_or(extent.prompt_length)),
      sequence_bias_("sequence_bias", config.sequence_bias, extent.vocab_size, extent.device),
      bad_words_("bad_words_ids", forbidden(config), extent.vocab_size, extent.device),
      eos_token_ids_(known_tokens(config.eos_token_ids, extent)),
      forced_bos_(known_tokens(forced_bos(config), extent)),
      forced_eos_(known_tokens(config.forced_eos_token_ids, extent)),
      suppressed_(known_tokens(config.suppress_tokens, extent)),
      suppressed_at_begin_(known_tokens(config.begin_suppress_tokens, extent)) {
  check_known("forced_bos_token_id", forced_bos(config), extent);
  check_known("forced_eos_token_ids", config.forced_eos_token_ids, extent);
}

bool LogitsProcessor::reads_tokens() const {
  return config_.repetition_penalty != 1.0 || config_.no_repeat_ngram_size > 0 ||
         sequence_bias_.reads_tokens() || bad_words_.reads_tokens();
}

at::Tensor LogitsProcessor::force(const at::Tensor& scores, const at::Tensor& token_ids) const {
  return at::full_like(scores, kMinusInfinity).index_fill_(1, token_ids, 0.0);
}

// Of a score's magnitude, so that it grows whatever its sign.
at::Tensor LogitsProcessor::favour_ends(const at::Tensor& scores, double steps) const {
  const double factor = std::pow(config_.exponential_decay_length_penalty->factor, steps) - 1.0;
  MISTRAL_EXT_CHECK(std::isfinite(factor),
                    "generate: exponential_decay_length_penalty must keep its factor to the power "
                    "of the steps finite, got {} after {}",
                    config_.exponential_decay_length_penalty->factor,
                    steps);
  const auto gains = scores.index_select(1, eos_token_ids_).abs() * factor;
  return scores + at::zeros_like(scores).index_copy_(1, eos_token_ids_, gains);
}

at::Tensor LogitsProcessor::process(const at::Tensor& input_ids,
                                    int64_t length,
                                    at::Tensor scores) const {
  if (!sequence_bias_.is_empty()) scores = sequence_bias_.add_to(scores, input_ids);
  if (config_.repetition_penalty != 1.0) {
    scores = penalise_repetition(scores, input_ids, config_.repetition_penalty);
  }
  if (config_.no_repeat_ngram_size > 0) {
    scores = forbid_repeated_ngrams(scores, input_ids, config_.no_repeat_ngram_size);
  }
  if (!bad_words_.is_empty()) scores = bad_words_.add_to(scores, input_ids);
  if (eos_token_ids_.defined() && length < min_length_) scores = suppress(scores, eos_token_ids_);
  if (forced_bos_.defined() && length == 1) scores = force(scores, forced_bos_);
  if (forced_eos_.defined() && length == extent_.max_length - 1) {
    scores = force(scores, forced_eos_);
  }
  if (config_.remove_invalid_values) scores = at::nan_to_num(scores);
  if (config_.exponential_decay_length_penalty && eos_token_ids_.defined()) {
    const auto steps = static_cast<double>(length - extent_.prompt_length) -
                       static_cast<double>(config_.exponential_decay_length_penalty->start);
    if (steps > 0.0) scores = favour_ends(scores, steps);
  }
  if (suppressed_.defined()) scores = suppress(scores, suppressed_);
  if (suppressed_at_begin_.defined() && length == begin_index_) {
    scores = suppress(scores, suppressed_at_begin_);
  }
  return scores;
}

at::Tensor LogitsProcessor::warp(at::Tensor scores) const {
  const int64_t at_least = extent_.min_tokens_to_keep;
  if (config_.temperature != 1.0) scores = scores / config_.temperature;
  if (config_.top_h) scores = keep_top_h(scores, *config_.top_h);
  if (config_.top_k != 0) scores = keep_top_k(scores, std::max(config_.top_k, at_least));
  if (config_.top_p < 1.0) scores = keep_top_p(scores, config_.top_p, at_least);
  if (config_.min_p > 0.0) scores = keep_min_p(scores, config_.min_p, at_least);
  if (config_.typical_p < 1.0) scores = keep_typical(scores, config_.typical_p, at_least);
  if (config_.epsilon_cutoff > 0.0) {
    scores = keep_epsilon(scores, config_.epsilon_cutoff, at_least);
  }
  if (config_.eta_cutoff > 0.0) scores = keep_eta(scores, config_.eta_cutoff, at_least);
  return scores;
}

at::Tensor LogitsProcessor::finish(const at::Tensor& scores) const {
  return config_.renormalize_logits ? at::log_softmax(scores, -1) : scores;
}

}  // namespace mistral_ext::generation
