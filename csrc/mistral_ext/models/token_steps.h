#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "mistral_ext/cache/kv_cache.h"

namespace mistral_ext::models {

class MistralForCausalLM;

// The rows that tokens are made for.
struct StepRows {
  at::Tensor tokens;  // int64 [batch], on the model's device: the newest, not yet in the cache
  std::vector<int64_t> positions;  // theirs
  std::vector<int64_t> padding;    // hidden tokens of the cache, from a row's first one on
  std::vector<bool> stopped;
  std::vector<int64_t> eos_token_ids;  // a row stops at any of them
  int64_t pad_token_id = 0;            // what rows that have stopped get
};

// Feeds single tokens of each row to a model on an accelerator, one launch a token; the likeliest
// ones go on without the host in between. For one thread at a time.
class TokenSteps {
 public:
  TokenSteps() = default;
  TokenSteps(const TokenSteps&) = delete;
  TokenSteps& operator=(const TokenSteps&) = delete;
  virtual ~TokenSteps() = default;

  // Whether it computes what the model does with these rows behind this cache, whose tokens are all
  // visible but the padding.
  virtual bool serves(const cache::KVCache& cache, const StepRows& rows) const = 0;

  // Feeds the tokens of `rows`. Returns the logits, fp32 [batch, vocab_size].
  virtual at::Tensor logits(cache::KVCache& cache, const StepRows& rows) = 0;

  // Makes up to `count` tokens a row, at least one, and returns them: int64 [batch, made], on the
  // device. Ends where all rows have stopped, and soon after go_on, asked before each launch but
  // the first, says no; what go_on throws is passed on. In all cases the cache has seen what was
  // fed, and `rows` is where it ended.
  virtual at::Tensor run(cache::KVCache& cache,
                         StepRows& rows,
                         int64_t count,
                         const std::function<bool()>& go_on) = 0;
};

// A model's: threads that generate at once have one each.
class TokenStepsPool {
 public:
  // Null where there are none for this model and device.
  using Factory = std::unique_ptr<TokenSteps> (*)(MistralForCausalLM& model, int64_t batch);
  // Of the accelerator that this library is built for.
  static void set_factory(Factory factory);

  // What steps are made for: a model may be of another dtype or elsewhere the next time.
  struct Key {
    int64_t batch;
    at::ScalarType dtype;
    at::Device device;
    bool operator==(const Key&) const = default;
  };
  struct Taken {
    Key key;
    std::unique_ptr<TokenSteps> steps;  // null: none
  };

  // One that is idle, or a new one.
  Taken take(MistralForCausalLM& model, int64_t batch);
  void give_back(Taken taken);

 private:
  std::mutex mutex_;  // guards what follows
  std::vector<Taken> idle_;
};

}  // namespace mistral_ext::models
