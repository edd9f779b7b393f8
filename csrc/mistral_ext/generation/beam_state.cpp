#include "mistral_ext/generation/beam_state.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "mistral_ext/core/check.h"

namespace mistral_ext::generation {
namespace {

// Stands for "not to be chosen". Added, not assigned, as the reference does: what it is added to is
// lost in rounding, and the order of the equals that result is ATen's.
constexpr float kExcluded = -1.0e9f;
constexpr int64_t kNoNode = -2;

}  // namespace

BeamState::BeamState(const BeamSearchConfig& config,
                     const at::Tensor& prompts,
                     int64_t continuations,
                     int64_t max_length,
                     int64_t vocab_size,
                     const at::Device& device)
    : config_(config),
      prompts_(prompts.cpu().contiguous()),
      batch_(prompts.size(0)),
      continuations_(continuations),
      prompt_length_(prompts.size(1)),
      max_new_tokens_(max_length - prompts.size(1)),
      vocab_size_(vocab_size),
      device_(device),
      scores_(at::full({batch_, config.num_beams}, kExcluded, at::kFloat)),
      nodes_(batch_ * config.num_beams, BeamTree::kRoot),
      sources_(nodes_.size()),
      best_scores_(at::full({batch_, config.num_beams}, kExcluded, at::kFloat)),
      best_nodes_(nodes_.size(), BeamTree::kRoot),
      has_ended_(nodes_.size(), false),
      can_improve_(batch_, true),
      parents_(batch_ * continuations) {
  // All beams are alike at first: one of them has to do.
  scores_.select(1, 0).zero_();
}

at::Tensor BeamState::last_tokens() const {
  auto tokens = at::empty({std::ssize(nodes_), 1}, at::kLong);
  auto* token = tokens.mutable_data_ptr<int64_t>();
  for (const int64_t node : nodes_) *token++ = tree_.token(node);
  return tokens.to(device_);
}

void BeamState::write_sequence(int64_t prompt, int64_t node, int64_t* out) const {
  const auto* begin = prompts_.const_data_ptr<int64_t>() + prompt * prompt_length_;
  std::copy(begin, begin + prompt_length_, out);
  tree_.write_tokens(node, out + prompt_length_);
}

at::Tensor BeamState::sequences() const {
  auto all = at::empty({std::ssize(nodes_), length()}, at::kLong);
  auto* row = all.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < nodes_.size(); ++i, row += length()) {
    write_sequence(static_cast<int64_t>(i) / config_.num_beams, nodes_[i], row);
  }
  return all.to(device_);
}

void BeamState::propose(const Highest::Found& picked) {
  proposed_quotients_ = over_length(picked.values, new_tokens_ + 1).contiguous();
  proposed_scores_ = picked.values.cpu().contiguous();
  const auto places = picked.indices.cpu().contiguous();
  const auto* place = places.const_data_ptr<int64_t>();
  proposed_tokens_ = at::empty({batch_ * continuations_}, at::kLong);
  auto* token = proposed_tokens_.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch_ * continuations_; ++i) {
    parents_[i] = i / continuations_ * config_.num_beams + place[i] / vocab_size_;
    token[i] = place[i] % vocab_size_;
  }
  proposed_nodes_.assign(batch_ * continuations_, kNoNode);
}

at::Tensor BeamState::proposed_sequences() const {
  const int64_t columns = length() + 1;
  auto all = at::empty({batch_ * continuations_, columns}, at::kLong);
  auto* row = all.mutable_data_ptr<int64_t>();
  const auto* token = proposed_tokens_.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < all.size(0); ++i, row += columns) {
    write_sequence(i / continuations_, nodes_[parents_[i]], row);
    row[columns - 1] = token[i];
  }
  return all.to(device_);
}

// Made when a continuation is kept: most are not.
int64_t BeamState::node_of(int64_t continuation) {
  auto& node = proposed_nodes_[continuation];
  if (node == kNoNode) {
    const int64_t parent = parents_[continuation];
    node = tree_.add(nodes_[parent],
                     proposed_tokens_.const_data_ptr<int64_t>()[continuation],
                     static_cast<int32_t>(parent));
  }
  return node;
}

void BeamState::decide(const at::Tensor& ended) {
  const bool* const ends = ended.const_data_ptr<bool>();
  nodes_before_ = nodes_;
  // Both look at the beams before this step.
  keep_best(ends);
  keep_running(ends);
  ++new_tokens_;
  look_ahead();
  const bool all_complete = std::ranges::all_of(has_ended_, std::identity());
  const bool complete = config_.early_stopping == EarlyStopping::kAtOnce && all_complete;
  const bool all_end = std::all_of(ends, ends + ended.numel(), std::identity());
  done_ = complete || all_end || std::ranges::none_of(can_improve_, std::identity());
}

// The best continuations that have not ended become the beams.
void BeamState::keep_running(const bool* ended) {
  auto scores = proposed_scores_.clone();
  auto* score = scores.mutable_data_ptr<float>();
  for (int64_t i = 0; i < scores.numel(); ++i) {
    if (ended[i]) score[i] += kExcluded;
  }
  const auto kept = highest_.find(scores, config_.num_beams, device_);
  scores_ = kept.values;
  const auto* index = kept.indices.const_data_ptr<int64_t>();
  std::vector<int64_t> nodes(nodes_.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int64_t prompt = static_cast<int64_t>(i) / config_.num_beams;
    const int64_t continuation = prompt * continuations_ + index[i];
    nodes[i] = node_of(continuation);
    sources_[i] = parents_[continuation];
  }
  nodes_ = std::move(nodes);
}

// The sequences that have ended now compete with those that had. Only the first num_beams
// continuations may; the others are there in case those end.
void BeamState::keep_best(const bool* ended) {
  const int64_t beams = config_.num_beams;
  const auto all = at::cat({best_scores_, proposed_quotients_}, 1);
  auto* row = all.mutable_data_ptr<float>() + beams;
  for (int64_t prompt = 0; prompt < batch_; ++prompt, row += all.size(1)) {
    const auto first = has_ended_.begin() + prompt * beams;
    const bool full = config_.early_stopping == EarlyStopping::kAtOnce &&
                      std::all_of(first, first + beams, std::identity());
    for (int64_t i = 0; i < continuations_; ++i) {
      if (full) row[i] += kExcluded;
      if (!can_improve_[prompt]) row[i] += kExcluded;
      if (i >= beams || !ended[prompt * continuations_ + i]) row[i] += kExcluded;
    }
  }
  const auto kept = highest_.find(all, beams, device_);
  best_scores_ = kept.values;
  const auto* index = kept.indices.const_data_ptr<int64_t>();
  const auto nodes_before = best_nodes_;
  const auto had_ended = has_ended_;
  for (int64_t i = 0; i < batch_ * beams; ++i) {
    const int64_t prompt = i / beams;
    if (index[i] < beams) {
      best_nodes_[i] = nodes_before[prompt * beams + index[i]];
      has_ended_[i] = had_ended[prompt * beams + index[i]];
    } else {
      const int64_t rank = index[i] - beams;
      const int64_t continuation = prompt * continuations_ + rank;
      best_nodes_[i] = node_of(continuation);
      has_ended_[i] = rank < beams && ended[continuation];
    }
  }
}

at::Tensor BeamState::over_length(const at::Tensor& scores, int64_t length) const {
  const double factor = std::pow(static_cast<double>(length), config_.length_penalty);
  MISTRAL_EXT_CHECK(std::isfinite(factor),
                    "beam_search: length_penalty must keep the length to its power finite, got {} "
                    "at length {}",
                    config_.length_penalty,
                    length);
  // Divided where the reference divides: on some devices it is a product with the inverse.
  return (scores.to(device_) / factor).cpu();
}

// Whether a prompt's best beam may still come before the worst of its sequences.
void BeamState::look_ahead() {
  const bool to_the_end =
      config_.early_stopping == EarlyStopping::kNever && config_.length_penalty > 0.0;
  const auto hopes =
      over_length(scores_.narrow(1, 0, 1).contiguous(), to_the_end ? max_new_tokens_ : new_tokens_);
  const auto* hope = hopes.const_data_ptr<float>();
  const auto* best = best_scores_.const_data_ptr<float>();
  const int64_t beams = config_.num_beams;
  for (int64_t prompt = 0; prompt < batch_; ++prompt, best += beams) {
    const float worst = *std::min_element(best, best + beams);
    bool possible = false;
    for (int64_t i = 0; i < beams; ++i) {
      const float bar = has_ended_[prompt * beams + i] ? worst : kExcluded;
      possible = possible || hope[prompt] > bar;
    }
    can_improve_[prompt] = can_improve_[prompt] && possible;
  }
}

std::vector<cache::RowMove> BeamState::row_moves(int64_t shared) const {
  auto moves = cache::plan_row_moves(sources_);
  for (auto& move : moves) {
    if (move.to == cache::kScratchRow || shared == 0) continue;
    const int64_t source = sources_[move.to];
    move.first_token = shared + tree_.common_depth(nodes_before_[move.to], nodes_before_[source]);
  }
  return moves;
}

int64_t BeamState::longest_best() const {
  int64_t longest = 0;
  for (int64_t i = 0; i < std::ssize(best_nodes_); ++i) {
    if (i % config_.num_beams < config_.num_return_sequences) {
      longest = std::max(longest, tree_.depth(best_nodes_[i]));
    }
  }
  return longest;
}

at::Tensor BeamState::best_sequences(int64_t fill) const {
  const int64_t returned = config_.num_return_sequences;
  const int64_t columns = prompt_length_ + longest_best();
  auto all = at::full({batch_ * returned, columns}, fill, at::kLong);
  auto* row = all.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch_ * returned; ++i, row += columns) {
    const int64_t prompt = i / returned;
    write_sequence(prompt, best_nodes_[prompt * config_.num_beams + i % returned], row);
  }
  return all.to(device_);
}

at::Tensor BeamState::best_beam_indices() const {
  const int64_t returned = config_.num_return_sequences;
  const int64_t columns = longest_best();
  auto all = at::full({batch_ * returned, columns}, -1, at::kInt);
  auto* row = all.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < batch_ * returned; ++i, row += columns) {
    tree_.write_beams(best_nodes_[i / returned * config_.num_beams + i % returned], row);
  }
  return all.to(device_);
}

at::Tensor BeamState::best_scores() const {
  return best_scores_.narrow(1, 0, config_.num_return_sequences).flatten().to(device_);
}

}  // namespace mistral_ext::generation
