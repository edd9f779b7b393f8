#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "mistral_ext/generation/exponential_draws.h"
#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/nucleus.h"
#include "mistral_ext/generation/sort_order.h"
#include "mistral_ext/generation/top_candidates.h"

namespace mistral_ext::generation {

// Top-k and top-p sampling on the CPU that works on the candidates and yet picks the token that
// at::multinomial picks after LogitsProcessor::warp and finish: every sum whose rounding depends on
// its order (the softmax) is left to ATen, on the full row; sorting, top-p's running sum, min-p and
// the draw concern the candidates alone. Without top-k, top-p finds them (nucleus.h).
class CandidateSampler {
 public:
  // serves(config) must hold.
  explicit CandidateSampler(const GenerationConfig& config)
      : top_k_(config.top_k),
        top_p_(config.top_p),
        min_p_(config.min_p),
        renormalize_(config.renormalize_logits) {}

  // Whether sampling asks for nothing that only LogitsProcessor has, and for what finds candidates.
  static bool serves(const GenerationConfig& config);

  // scores: fp32 [batch, vocab_size] on the CPU, contiguous, the temperature applied. Returns int64
  // [batch], or nothing, with no variate drawn, where a row has a NaN, an infinity or nothing but
  // -infinity.
  //   warped: where not null, gets the scores that remain, the others at -infinity; with
  //     renormalize_logits as logarithms of probabilities.
  std::optional<at::Tensor> sample(const at::Tensor& scores,
                                   const std::optional<at::Generator>& generator,
                                   at::Tensor* warped);

 private:
  using Rows = std::vector<std::vector<Candidate>>;

  bool find(const at::Tensor& scores);
  void keep_top_p();
  void order_ties();
  bool keep_min_p();
  void write(const Rows& rows, bool at_the_end);
  void erase(const Rows& rows, bool at_the_end);
  void softmax();
  at::Tensor draw(const std::optional<at::Generator>& generator);

  int64_t top_k_;
  double top_p_;
  double min_p_;
  bool renormalize_;

  TopCandidates top_;
  Nucleus nucleus_;
  SortOrder order_;
  ExponentialDraws exponential_;
  Rows rows_;                       // the candidates of each row, by rising index
  Rows sorted_;                     // the same, by rising score
  std::vector<size_t> removed_;     // how many of those top-p removes
  std::vector<int64_t> positions_;  // of candidates, mostly in the flat [batch, vocab_size]
  std::vector<float> variates_;
  at::Tensor scores_;         // [batch, vocab_size], -infinity but where candidates are written
  at::Tensor probabilities_;  // [batch, vocab_size]
};

}  // namespace mistral_ext::generation
