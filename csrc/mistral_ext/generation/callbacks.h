#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <stop_token>

#include "mistral_ext/core/config.h"

namespace mistral_ext::generation {

// One step, as a callback sees it. Both tensors are on the model's device.
struct Step {
  at::Tensor tokens;     // int64 [rows], the new ones; padding in rows that had ended
  at::Tensor sequences;  // int64 [rows, length], all so far
};

struct Callbacks {
  // After each step. Returns bool [rows], the rows to stop, or an undefined tensor for none.
  std::function<at::Tensor(const Step&)> on_step;
  // After each pass of the model; throws where the caller wants to leave. The cache then holds
  // whole tokens.
  std::function<void()> check_interrupt;
  // Once, when the sequences have outgrown the model's max_position_embeddings and are not yet of
  // the greatest length. Absent: a warning, the first time in a process.
  std::function<void(int64_t length)> on_overlength;
  // Asks for an end from any thread: seen between two passes of the model, so within the time of
  // one (prefill_chunk_size makes those of a long prompt short). What was made so far is returned,
  // and the cache fits it: generate goes on from there when it is called with the sequences
  // returned and this cache.
  std::stop_token stop;
};

// What to do about on_overlength.
class LengthWatch {
 public:
  LengthWatch(const MistralConfig& config, const Callbacks& callbacks)
      : longest_(config.max_position_embeddings), on_overlength_(callbacks.on_overlength) {}

  // To be told of each length below the greatest.
  void reached(int64_t length);

 private:
  int64_t longest_;
  const std::function<void(int64_t)>& on_overlength_;
  bool told_ = false;
};

}  // namespace mistral_ext::generation
