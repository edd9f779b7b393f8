#pragma once

#include <cstdint>
#include <optional>

#include "mistral_ext/generation/beam_search_config.h"
#include "mistral_ext/generation/generation_config.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace mistral_ext::programs {

// How tokens are picked, where the folder's generation configuration is not to be followed.
struct SamplingOptions {
  bool greedy = false;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> seed;
  int64_t max_new_tokens = 128;
  std::optional<int64_t> num_beams;
};

void add_sampling_options(CLI::App& app, SamplingOptions& options);

// Puts them over what the folder says. Where tokens are drawn and no seed is given, config.seed is
// a new one. Throws ValueError naming the first field whose value cannot work.
void apply(const SamplingOptions& options,
           generation::GenerationConfig& config,
           generation::BeamSearchConfig& beams);

}  // namespace mistral_ext::programs
