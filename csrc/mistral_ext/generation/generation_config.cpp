#include "mistral_ext/generation/generation_config.h"

#include <cmath>
#include <utility>

#include "mistral_ext/core/check.h"

namespace mistral_ext::generation {
namespace {

void check_not_negative(const char* name, int64_t value) {
  MISTRAL_EXT_CHECK(value >= 0, "generate: {} must not be negative, got {}", name, value);
}

// Written so that a NaN fails.
void check_positive(const char* name, double value) {
  MISTRAL_EXT_CHECK(value > 0.0 && std::isfinite(value),
                    "generate: {} must be positive and finite, got {}",
                    name,
                    value);
}

}  // namespace

void GenerationConfig::validate() const {
  MISTRAL_EXT_CHECK(max_new_tokens || max_length,
                    "generate: max_new_tokens or max_length must be given, got neither");
  if (max_length) check_not_negative("max_length", *max_length);
  if (max_new_tokens) {
    MISTRAL_EXT_CHECK(
        *max_new_tokens > 0, "generate: max_new_tokens must be positive, got {}", *max_new_tokens);
  }
  check_not_negative("min_length", min_length);
  check_not_negative("min_new_tokens", min_new_tokens);
  check_not_negative("prefill_chunk_size", prefill_chunk_size);
  check_positive("repetition_penalty", repetition_penalty);
  check_not_negative("no_repeat_ngram_size", no_repeat_ngram_size);
  if (!do_sample) return;
  check_positive("temperature", temperature);
  check_not_negative("top_k", top_k);
  MISTRAL_EXT_CHECK(
      top_p > 0.0 && top_p <= 1.0, "generate: top_p must be in (0, 1], got {}", top_p);
  MISTRAL_EXT_CHECK(
      min_p >= 0.0 && min_p <= 1.0, "generate: min_p must be in [0, 1], got {}", min_p);
  MISTRAL_EXT_CHECK(!top_h || (*top_h > 0.0 && *top_h <= 1.0),
                    "generate: top_h must be in (0, 1], got {}",
                    top_h.value_or(0.0));
  MISTRAL_EXT_CHECK(typical_p > 0.0 && typical_p <= 1.0,
                    "generate: typical_p must be in (0, 1], got {}",
                    typical_p);
  for (const auto& [name, cutoff] :
       {std::pair("epsilon_cutoff", epsilon_cutoff), std::pair("eta_cutoff", eta_cutoff)}) {
    MISTRAL_EXT_CHECK(
        cutoff >= 0.0 && cutoff < 1.0, "generate: {} must be in [0, 1), got {}", name, cutoff);
  }
}

}  // namespace mistral_ext::generation
