#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace mistral_ext::generation {

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

  double repetition_penalty = 1.0;

  bool do_sample = false;  // otherwise the likeliest token, and what follows is not read
  double temperature = 1.0;
  int64_t top_k = 0;  // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
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
