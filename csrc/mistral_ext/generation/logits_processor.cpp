#include "mistral_ext/generation/logits_processor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isin.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>

namespace mistral_ext::generation {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

at::Tensor suppress(const at::Tensor& scores, const at::Tensor& token_ids) {
  const auto vocabulary = at::arange(scores.size(1), token_ids.options());
  return scores.masked_fill(at::isin(vocabulary, token_ids), kMinusInfinity);
}

}  // namespace

at::Tensor penalise_repetition(const at::Tensor& scores,
                               const at::Tensor& input_ids,
                               double penalty) {
  const auto seen = at::gather(scores, 1, input_ids);
  return at::scatter(scores, 1, input_ids, at::where(seen < 0, seen * penalty, seen / penalty));
}

at::Tensor keep_top_k(const at::Tensor& scores, int64_t k) {
  k = std::min(k, scores.size(1));
  const auto last = std::get<0>(at::topk(scores, k)).narrow(1, k - 1, 1);
  return scores.masked_fill(scores < last, kMinusInfinity);
}

at::Tensor keep_top_p(const at::Tensor& scores, double p, int64_t at_least) {
  const auto [sorted, order] = at::sort(scores, /*dim=*/-1, /*descending=*/false);
  auto removed = at::softmax(sorted, -1).cumsum(-1) <= 1.0 - p;
  at_least = std::min(at_least, removed.size(1));
  removed.narrow(1, removed.size(1) - at_least, at_least).fill_(false);
  return scores.masked_fill(at::scatter(removed, 1, order, removed), kMinusInfinity);
}

at::Tensor keep_min_p(const at::Tensor& scores, double p, int64_t at_least) {
  const auto probabilities = at::softmax(scores, -1);
  const auto least = probabilities.amax(-1, /*keepdim=*/true) * p;
  auto removed = probabilities < least;
  if (at_least > 1) {  // the likeliest token stays anyway
    at_least = std::min(at_least, scores.size(1));
    removed.scatter_(1, std::get<1>(at::topk(probabilities, at_least)), false);
  }
  return scores.masked_fill(removed, kMinusInfinity);
}

LogitsProcessor::LogitsProcessor(const GenerationConfig& config,
                                 int64_t prompt_length,
                                 const at::Device& device,
                                 int64_t min_tokens_to_keep)
    : repetition_penalty_(config.repetition_penalty),
      min_length_(std::max(config.min_length,
                           config.min_new_tokens > 0 ? prompt_length + config.min_new_tokens : 0)),
      temperature_(config.temperature),
      top_k_(config.top_k),
      top_p_(config.top_p),
      min_p_(config.min_p),
      min_tokens_to_keep_(min_tokens_to_keep) {
  if (!config.eos_token_ids.empty()) {
    eos_token_ids_ = at::tensor(config.eos_token_ids, at::kLong).to(device);
  }
}

at::Tensor LogitsProcessor::process(const at::Tensor& input_ids,
                                    int64_t length,
                                    at::Tensor scores) const {
  if (reads_tokens()) {
    scores = penalise_repetition(scores, input_ids, repetition_penalty_);
  }
  if (eos_token_ids_.defined() && length < min_length_) {
    scores = suppress(scores, eos_token_ids_);
  }
  return scores;
}

at::Tensor LogitsProcessor::warp(at::Tensor scores) const {
  if (temperature_ != 1.0) scores = scores / temperature_;
  if (top_k_ != 0) scores = keep_top_k(scores, std::max(top_k_, min_tokens_to_keep_));
  if (top_p_ < 1.0) scores = keep_top_p(scores, top_p_, min_tokens_to_keep_);
  if (min_p_ > 0.0) scores = keep_min_p(scores, min_p_, min_tokens_to_keep_);
  return scores;
}

}  // namespace mistral_ext::generation
