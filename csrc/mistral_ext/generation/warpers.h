#pragma once

#include <ATen/core/Tensor.h>

namespace mistral_ext::generation {

// What sampling removes from the scores before it draws, with Hugging Face's operations in Hugging
// Face's order. All are plain ATen and run on any device; the CPU's short cut for top-k, top-p and
// min-p is in candidate_sampler.h.
//
// scores: fp32 [batch, vocab_size], not modified; what is removed becomes -infinity.
// at_least: so many tokens stay in any case.

// Keeps the k highest scores and whatever equals the last of them.
at::Tensor keep_top_k(const at::Tensor& scores, int64_t k);

// Keeps the fewest likeliest tokens whose probabilities reach p (Holtzman et al. 2019, arXiv
// 1904.09751).
at::Tensor keep_top_p(const at::Tensor& scores, double p, int64_t at_least = 1);

// Keeps the tokens at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv
// 2407.01082), p <= 1.
at::Tensor keep_min_p(const at::Tensor& scores, double p, int64_t at_least = 1);

// Of the 100 likeliest tokens keeps the first whose terms of the entropy make up the share h of it,
// 0 < h <= 1 (Potraghloo et al. 2025, arXiv 2509.02510).
at::Tensor keep_top_h(const at::Tensor& scores, double h);

// Keeps the fewest tokens that reach the probability `mass` of those whose surprise is nearest to
// the entropy, 0 < mass < 1 (Meister et al. 2022, arXiv 2202.00666).
at::Tensor keep_typical(const at::Tensor& scores, double mass, int64_t at_least = 1);

// Keeps the tokens whose probability is at least epsilon, 0 < epsilon < 1 (Hewitt et al. 2022,
// arXiv 2210.15191).
at::Tensor keep_epsilon(const at::Tensor& scores, double epsilon, int64_t at_least = 1);

// The same with a bound that is lower where the entropy is high: the lesser of epsilon and
// sqrt(epsilon) * exp(-entropy) (as before).
at::Tensor keep_eta(const at::Tensor& scores, double epsilon, int64_t at_least = 1);

}  // namespace mistral_ext::generation
