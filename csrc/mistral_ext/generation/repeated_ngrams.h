#pragma once

#include <ATen/core/Tensor.h>

namespace mistral_ext::generation {

// Sets to -infinity what would make the last n tokens of a row occur in it for a second time
// (Paulus et al. 2017, arXiv 1705.04304; n = no_repeat_ngram_size). Returns a copy, or the scores
// as they are where nothing is forbidden.
//   scores: fp32 [rows, vocab_size]. input_ids: int64 [rows, length], all tokens so far.
//   n: 1 forbids every token so far.
// Throws ValueError where a token to forbid is not in the vocabulary.
at::Tensor forbid_repeated_ngrams(const at::Tensor& scores, const at::Tensor& input_ids, int64_t n);

}  // namespace mistral_ext::generation
