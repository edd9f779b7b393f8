#pragma once

#include <cstdint>

namespace mistral_ext::generation {

// When a prompt's search ends, given as many ended sequences as beams. The values are Hugging
// Face's early_stopping.
enum class EarlyStopping {
  kNever,     // "never": when no beam can become better any more
  kUnlikely,  // False: when no beam would be better if it ended now
  kAtOnce,    // True
};

// What beam search adds to GenerationConfig. Names and meanings are Hugging Face's.
struct BeamSearchConfig {
  int64_t num_beams = 4;
  // The best so many of each prompt's sequences.
  int64_t num_return_sequences = 1;
  // A sequence's score is its sum of log-probabilities over its number of new tokens to this power:
  // above 0 favours long ones.
  double length_penalty = 1.0;
  EarlyStopping early_stopping = EarlyStopping::kUnlikely;

  // Throws ValueError naming the first field whose value cannot work.
  void validate() const;
};

}  // namespace mistral_ext::generation
