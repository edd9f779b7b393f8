#include "mistral_ext/generation/candidate_sampler.h"

#include <ATen/ops/_softmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <limits>

namespace mistral_ext::generation {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

}  // namespace

bool CandidateSampler::serves(const GenerationConfig& config) {
  return (config.top_k > 0 || config.top_p < 1.0) && !config.top_h && config.typical_p == 1.0 &&
         config.epsilon_cutoff == 0.0 && config.eta_cutoff == 0.0;
}

bool CandidateSampler::find(const at::Tensor& scores) {
  const int64_t batch = scores.size(0);
  const int64_t vocab_size = scores.size(1);
  if (!scores_.defined() || scores_.sizes() != scores.sizes()) {
    scores_ = at::full(scores.sizes(), kMinusInfinity, at::kFloat);
    probabilities_ = at::empty(scores.sizes(), at::kFloat);
    rows_.resize(batch);
    sorted_.resize(batch);
    removed_.resize(batch);
  }
  if (top_k_ == 0) return nucleus_.find(scores, top_p_, /*at_least=*/1, rows_);
  const int64_t k = std::min(top_k_, vocab_size);
  const float* row = scores.const_data_ptr<float>();
  for (auto& candidates : rows_) {
    if (!top_.find(row, vocab_size, k, candidates) || candidates.empty()) return false;
    row += vocab_size;
  }
  return true;
}

// Each row's candidates into scores_, at their index or, in their order, at the row's end.
void CandidateSampler::write(const Rows& rows, bool at_the_end) {
  float* row = scores_.mutable_data_ptr<float>();
  for (const auto& candidates : rows) {
    float* end = row + scores_.size(1) - candidates.size();
    for (const auto& [score, index] : candidates) (at_the_end ? *end++ : row[index]) = score;
    row += scores_.size(1);
  }
}

void CandidateSampler::erase(const Rows& rows, bool at_the_end) {
  float* row = scores_.mutable_data_ptr<float>();
  for (const auto& candidates : rows) {
    float* end = row + scores_.size(1) - candidates.size();
    for (const auto& candidate : candidates) {
      (at_the_end ? *end++ : row[candidate.index]) = kMinusInfinity;
    }
    row += scores_.size(1);
  }
}

void CandidateSampler::softmax() {
  at::_softmax_out(probabilities_, scores_, /*dim=*/-1, /*half_to_float=*/false);
}

// keep_top_p of warpers.h: the probabilities of the row in sorted order, summed up in
// double as at::cumsum does. What is no candidate stands before them and adds nothing.
void CandidateSampler::keep_top_p() {
  const auto by_score = [](const Candidate& a, const Candidate& b) { return a.score < b.score; };
  const auto by_index = [](const Candidate& a, const Candidate& b) { return a.index < b.index; };
  for (size_t i = 0; i < rows_.size(); ++i) {
    sorted_[i] = rows_[i];
    std::sort(sorted_[i].begin(), sorted_[i].end(), by_score);
  }
  write(sorted_, /*at_the_end=*/true);
  softmax();
  erase(sorted_, /*at_the_end=*/true);
  const auto most_removed = static_cast<float>(1.0 - top_p_);
  const float* row_end = probabilities_.const_data_ptr<float>();
  bool cuts_a_tie = false;
  for (size_t i = 0; i < rows_.size(); ++i) {
    row_end += probabilities_.size(1);
    const auto& candidates = sorted_[i];
    const float* probability = row_end - candidates.size();
    double sum = 0.0;
    size_t removed = 0;
    for (; removed + 1 < candidates.size(); ++removed) {
      sum += *probability++;
      if (static_cast<float>(sum) > most_removed) break;
    }
    removed_[i] = removed;
    cuts_a_tie =
        cuts_a_tie || (removed > 0 && candidates[removed - 1].score == candidates[removed].score);
  }
  if (cuts_a_tie) order_ties();
  for (size_t i = 0; i < rows_.size(); ++i) {
    rows_[i].assign(sorted_[i].begin() + removed_[i], sorted_[i].end());
    std::sort(rows_[i].begin(), rows_[i].end(), by_index);
  }
}

// Where the cut falls between equal scores, which of them at::sort puts first decides.
void CandidateSampler::order_ties() {
  write(rows_, /*at_the_end=*/false);
  const int64_t vocab_size = scores_.size(1);
  const auto* row = scores_.const_data_ptr<float>();
  at::Tensor all;  // in the order of at::sort
  for (size_t i = 0; i < sorted_.size(); ++i, row += vocab_size) {
    auto& candidates = sorted_[i];
    const int64_t first = vocab_size - std::ssize(candidates);
    if (!order_.find(row, vocab_size, first, vocab_size, positions_)) {
      if (!all.defined()) all = std::get<1>(at::sort(scores_, /*dim=*/-1, /*descending=*/false));
      const auto* end = all.const_data_ptr<int64_t>() + (i + 1) * vocab_size;
      positions_.assign(end - candidates.size(), end);
    }
    auto index = positions_.begin();
    for (auto& candidate : candidates) candidate.index = *index++;
  }
  erase(rows_, /*at_the_end=*/false);
}

// keep_min_p of warpers.h, given the probabilities. Whether it removed anything.
bool CandidateSampler::keep_min_p() {
  bool removed = false;
  const float* row = probabilities_.const_data_ptr<float>();
  for (auto& candidates : rows_) {
    float likeliest = 0.0f;
    for (const auto& candidate : candidates) {
      likeliest = std::max(likeliest, row[candidate.index]);
    }
    const float least = likeliest * static_cast<float>(min_p_);
    const auto is_unlikely = [&](const Candidate& candidate) {
      return row[candidate.index] < least;
    };
    removed = std::erase_if(candidates, is_unlikely) > 0 || removed;
    row += probabilities_.size(1);
  }
  return removed;
}

at::Tensor CandidateSampler::draw(const std::optional<at::Generator>& generator) {
  positions_.clear();
  int64_t row_begin = 0;
  for (const auto& candidates : rows_) {
    for (const auto& candidate : candidates) positions_.push_back(row_begin + candidate.index);
    row_begin += scores_.size(1);
  }
  variates_.resize(positions_.size());
  exponential_.draw(generator, scores_.numel(), positions_, variates_.data());

  auto tokens = at::empty({std::ssize(rows_)}, at::kLong);
  auto* token = tokens.mutable_data_ptr<int64_t>();
  const float* row = probabilities_.const_data_ptr<float>();
  const float* variate = variates_.data();
  for (const auto& candidates : rows_) {
    float highest = -1.0f;
    for (const auto& candidate : candidates) {
      const float quotient = row[candidate.index] / *variate++;
      if (quotient > highest) {
        highest = quotient;
        *token = candidate.index;
      }
    }
    ++token;
    row += scores_.size(1);
  }
  return tokens;
}

std::optional<at::Tensor> CandidateSampler::sample(const at::Tensor& scores,
                                                   const std::optional<at::Generator>& generator,
                                                   at::Tensor* warped) {
  if (!find(scores)) return std::nullopt;
  if (top_k_ > 0 && top_p_ < 1.0) keep_top_p();
  write(rows_, /*at_the_end=*/false);
  softmax();
  if (min_p_ > 0.0) {
    const Rows before = rows_;
    if (keep_min_p()) {
      erase(before, /*at_the_end=*/false);
      write(rows_, /*at_the_end=*/false);
      softmax();
    }
  }
  if (renormalize_) {
    const auto normalised = at::log_softmax(scores_, -1);
    at::_softmax_out(probabilities_, normalised, /*dim=*/-1, /*half_to_float=*/false);
    if (warped != nullptr) *warped = normalised;
  } else if (warped != nullptr) {
    *warped = scores_.clone();
  }
  auto tokens = draw(generator);
  erase(rows_, /*at_the_end=*/false);
  return tokens;
}

}  // namespace mistral_ext::generation
