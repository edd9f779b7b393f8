#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mistral_ext/cache/row_moves.h"
#include "mistral_ext/generation/beam_search_config.h"
#include "mistral_ext/generation/beam_tree.h"
#include "mistral_ext/generation/highest.h"

namespace mistral_ext::generation {

// The beams of every prompt, and the best of its sequences that have ended. What Hugging Face keeps
// in padded tensors on the device are numbers on the host here; every sum, quotient and order is
// one of its own, so that the same scores give the same beams.
class BeamState {
 public:
  // prompts: int64 [batch, prompt].
  // continuations: how many of each prompt a step looks at.
  // max_length: columns of the sequences at most.
  BeamState(const BeamSearchConfig& config,
            const at::Tensor& prompts,
            int64_t continuations,
            int64_t max_length,
            int64_t vocab_size,
            const at::Device& device);

  // Columns of the beams' sequences.
  int64_t length() const { return prompt_length_ + new_tokens_; }
  // fp32 [batch, num_beams]: each beam's score so far, best first.
  at::Tensor scores() const { return scores_.to(device_); }
  // int64 [batch * num_beams, 1]: the last token of each.
  at::Tensor last_tokens() const;
  // int64 [batch * num_beams, length]
  at::Tensor sequences() const;

  // A step in three parts. First: the continuations picked, [batch, continuations] of scores and of
  // places in [num_beams * vocab_size].
  void propose(const Highest::Found& picked);
  // int64 [batch * continuations] and [batch * continuations, length + 1], on the device.
  at::Tensor proposed_tokens() const { return proposed_tokens_.to(device_); }
  at::Tensor proposed_sequences() const;
  // Second: which of them end, bool [batch * continuations] on the CPU.
  void decide(const at::Tensor& ended);
  // Third: how the rows of a cache follow the beams. The cache has seen all of the tokens of the
  // beams before this step; its first `shared` ones are the same in all beams of a prompt.
  std::vector<cache::RowMove> row_moves(int64_t shared) const;

  // No beam can lead to a better sequence, or has a way on.
  bool is_done() const { return done_; }

  // Of each prompt the best sequences, best first; as in BeamSearchOutput.
  at::Tensor best_sequences(int64_t fill) const;
  at::Tensor best_scores() const;
  at::Tensor best_beam_indices() const;

 private:
  int64_t node_of(int64_t continuation);
  void write_sequence(int64_t prompt, int64_t node, int64_t* out) const;
  void keep_running(const bool* ended);
  void keep_best(const bool* ended);
  void look_ahead();
  int64_t longest_best() const;
  at::Tensor over_length(const at::Tensor& scores, int64_t length) const;

  BeamSearchConfig config_;
  at::Tensor prompts_;  // int64 [batch, prompt], on the CPU
  int64_t batch_;
  int64_t continuations_;
  int64_t prompt_length_;
  int64_t max_new_tokens_;
  int64_t vocab_size_;
  at::Device device_;

  Highest highest_;
  BeamTree tree_;
  int64_t new_tokens_ = 0;
  bool done_ = false;

  at::Tensor scores_;                  // fp32 [batch, num_beams], on the CPU
  std::vector<int64_t> nodes_;         // of the beams
  std::vector<int64_t> nodes_before_;  // one step ago
  std::vector<int64_t> sources_;       // the beam one step ago that each comes from

  at::Tensor best_scores_;  // fp32 [batch, num_beams], on the CPU
  std::vector<int64_t> best_nodes_;
  std::vector<bool> has_ended_;    // whether that one has: places are filled with others at first
  std::vector<bool> can_improve_;  // of each prompt

  // Of the continuations, [batch, continuations] on the CPU:
  at::Tensor proposed_scores_;     // fp32
  at::Tensor proposed_quotients_;  // fp32, over the length
  at::Tensor proposed_tokens_;     // int64, flat
  std::vector<int64_t> parents_;   // beam, counted over all prompts
  std::vector<int64_t> proposed_nodes_;
};

}  // namespace mistral_ext::generation
