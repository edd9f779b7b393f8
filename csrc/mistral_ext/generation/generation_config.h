#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace mistral_ext::generation {

// A sequence and what is added to the score of its last token behind the others.
struct BiasedSequence {
  std::vector<int64_t> token_ids;
  double bias;
};

// From `start` new tokens on, the ends gain: their scores' magnitudes times factor^n - 1, n tokens
// later.
struct ExponentialDecay {
  int64_t start;
  double factor;
};

// How to generate. Names and meanings are Hugging Face's.
struct GenerationConfig {
  // Lengths count columns of the returned sequences, the prompt included. One of the first two must
  // be given; max_new_tokens wins.
  std::optional<int64_t> max_length;
  std::optional<int64_t> max_new_tokens;
  // No end-of-sequence token before either.
  int64_t min_length = 0;
  int64_t min_new_tokens = 0;

  // A row ends at any of these ids; afterwards it is filled with pad_token_id, which may be absent
  // where there is one row.
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;

  // What changes the scores at every step, in this order.
  std::vector<BiasedSequence> sequence_bias;
  double repetition_penalty = 1.0;
  // No so many tokens in a row occur twice, the prompt included; 0: they may.
  int64_t no_repeat_ngram_size = 0;
  // Sequences that do not occur. An end alone among them is ignored.
  std::vector<std::vector<int64_t>> bad_words_ids;
  // Behind a prompt of one token.
  std::optional<int64_t> forced_bos_token_id;
  // The last token before the greatest length is one of these.
  std::vector<int64_t> forced_eos_token_ids;
  // NaN becomes 0, and an infinity the greatest number of its sign.
  bool remove_invalid_values = false;
  std::optional<ExponentialDecay> exponential_decay_length_penalty;
  // Tokens that do not occur; those that are not in the vocabulary are ignored.
  std::vector<int64_t> suppress_tokens;
  // The same where the sequences have begin_index columns; absent: for the first new token.
  std::vector<int64_t> begin_suppress_tokens;
  std::optional<int64_t> begin_index;
  // The scores become logarithms of probabilities, after all else.
  bool renormalize_logits = false;

  // Otherwise the likeliest token is taken, and what follows, to the seed, is not read.
  bool do_sample = false;
  double temperature = 1.0;
  std::optional<double> top_h;
  int64_t top_k = 0;  // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
  double typical_p = 1.0;
  double epsilon_cutoff = 0.0;
  double eta_cutoff = 0.0;
  // Draws from a generator of this seed. Absent: from the generator given, or the default one.
  std::optional<uint64_t> seed;

  // Tokens of the prompt in one pass; 0: all of them.
  int64_t prefill_chunk_size = 0;

  bool output_scores = false;
  bool output_logits = false;

  // Throws ValueError naming the first field whose value cannot work.
  void validate() const;
};

}  // namespace mistral_ext::generation
