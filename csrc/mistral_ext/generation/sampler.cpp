#include "mistral_ext/generation/sampler.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/softmax.h>

#include <mutex>

#include "mistral_ext/core/check.h"

namespace mistral_ext::generation {

std::optional<at::Generator> choose_generator(const GenerationConfig& config,
                                              const std::optional<at::Generator>& given,
                                              const at::Device& device) {
  if (given) {
    MISTRAL_EXT_CHECK(given->device().type() == device.type(),
                      "generate: generator must be on {}, got {}",
                      device.str(),
                      given->device().str());
  }
  if (!config.do_sample || !config.seed) return given;
  auto shared = at::globalContext().defaultGenerator(device);
  auto seeded = [&] {
    const std::lock_guard<std::mutex> lock(shared.mutex());  // other threads may draw from it
    return shared.clone();
  }();
  const std::lock_guard<std::mutex> lock(seeded.mutex());
  seeded.set_current_seed(*config.seed);
  return seeded;
}

Sampler::Sampler(const GenerationConfig& config,
                 const std::optional<at::Generator>& generator,
                 const LoopExtent& extent)
    : processor_(config, extent),
      do_sample_(config.do_sample),
      temperature_(config.temperature),
      generator_(choose_generator(config, generator, extent.device)) {
  if (do_sample_ && extent.device.is_cpu() && CandidateSampler::serves(config)) {
    candidate_sampler_.emplace(config);
  }
}

at::Tensor Sampler::next_tokens(const at::Tensor& input_ids,
                                const at::Tensor& logits,
                                at::Tensor* scores) {
  auto processed = processor_.process(input_ids, input_ids.size(1), logits);
  if (do_sample_) return draw(processed, scores);
  processed = processor_.finish(processed);
  if (scores != nullptr) *scores = processed;
  return greedy(processed);
}

at::Tensor Sampler::greedy(const at::Tensor& scores) {
  if (!scores.is_cpu() || !scores.is_contiguous()) return at::argmax(scores, -1);
  auto tokens = at::empty({scores.size(0)}, at::kLong);
  auto* token = tokens.mutable_data_ptr<int64_t>();
  const float* row = scores.const_data_ptr<float>();
  for (int64_t i = 0; i < scores.size(0); ++i) {
    const auto highest = top_.argmax(row, scores.size(1));
    if (!highest) return at::argmax(scores, -1);
    *token++ = *highest;
    row += scores.size(1);
  }
  return tokens;
}

at::Tensor Sampler::draw(const at::Tensor& scores, at::Tensor* warped) {
  if (candidate_sampler_) {
    const auto tempered =
        temperature_ == 1.0 ? scores.contiguous() : (scores / temperature_).contiguous();
    if (const auto tokens = candidate_sampler_->sample(tempered, generator_, warped)) {
      return *tokens;
    }
  }
  const auto all = processor_.finish(processor_.warp(scores));
  if (warped != nullptr) *warped = all;
  return at::multinomial(at::softmax(all, -1), 1, /*replacement=*/false, generator_).squeeze(1);
}

}  // namespace mistral_ext::generation
