#include "mistral_ext/programs/sampling_options.h"

#include <CLI/CLI.hpp>
#include <limits>
#include <random>

#include "mistral_ext/programs/option_values.h"

namespace mistral_ext::programs {
namespace {

constexpr int64_t kMostSeed = std::numeric_limits<int64_t>::max();

uint64_t new_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 31 | device()) & static_cast<uint64_t>(kMostSeed);
}

}  // namespace

void add_sampling_options(CLI::App& app, SamplingOptions& options) {
  const auto value =
      [&](const char* name, auto& field, const CLI::Validator& rule, const char* what) {
        return app.add_option(name, field, what)->transform(rule);
      };
  value("--max-new-tokens", options.max_new_tokens, integer(1), "at most so many (default: 128)");
  auto* greedy = app.add_flag("--greedy", options.greedy, "always the likeliest token");
  for (auto* option : {
           value("--temperature", options.temperature, divisor(), "above 1 flattens the scores"),
           value("--top-k", options.top_k, integer(0), "draw from the likeliest N; 0: all"),
           value("--top-p", options.top_p, probability(), "draw from the likeliest that make up P"),
           value("--min-p", options.min_p, share(), "none below P times the likeliest"),
           value("--seed", options.seed, integer(0, kMostSeed), "sample; a seed gives one text"),
       }) {
    option->excludes(greedy);
  }
  value("--repetition-penalty",
        options.repetition_penalty,
        divisor(),
        "above 1 avoids tokens that were there");
  value("--num-beams", options.num_beams, integer(1), "beam search; the text comes at the end");
}

void apply(const SamplingOptions& options,
           generation::GenerationConfig& config,
           generation::BeamSearchConfig& beams) {
  const bool samples =
      options.temperature || options.top_k || options.top_p || options.min_p || options.seed;
  config.do_sample = !options.greedy && (samples || config.do_sample);
  config.max_new_tokens = options.max_new_tokens;
  config.temperature = options.temperature.value_or(config.temperature);
  config.top_k = options.top_k.value_or(config.top_k);
  config.top_p = options.top_p.value_or(config.top_p);
  config.min_p = options.min_p.value_or(config.min_p);
  config.repetition_penalty = options.repetition_penalty.value_or(config.repetition_penalty);
  if (config.do_sample) {
    config.seed = options.seed ? static_cast<uint64_t>(*options.seed) : new_seed();
  }
  beams.num_beams = options.num_beams.value_or(beams.num_beams);
  config.validate();
  beams.validate();
}

}  // namespace mistral_ext::programs
