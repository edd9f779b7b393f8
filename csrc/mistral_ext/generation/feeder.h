#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>

#include "mistral_ext/generation/callbacks.h"
#include "mistral_ext/generation/device_steps.h"
#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/growing_columns.h"
#include "mistral_ext/generation/prompt.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::generation {

// Feeds the model: the prompt, then a token of each row at a time.
class Feeder {
 public:
  // prompt and callbacks must outlive it.
  //   cache: continued where it is given; otherwise one of its own.
  Feeder(models::MistralForCausalLM& model,
         const Prompt& prompt,
         cache::KVCache* cache,
         const Callbacks& callbacks);

  // Each returns the logits of the last position, [rows, vocab_size]. First comes the prompt.
  //   chunk_size: tokens in one pass; 0: all.
  // Undefined where a stop was asked for before the last pass of the prompt: those before it are in
  // the cache.
  at::Tensor feed_prompt(int64_t chunk_size);
  // tokens: int64 [rows, 1]
  at::Tensor feed(const at::Tensor& tokens);

  // Feeds tokens, int64 [batch, 1], and then the likeliest one after another; see
  // DeviceSteps::likeliest. Undefined where only feed() can.
  at::Tensor feed_likeliest(const at::Tensor& tokens,
                            const at::Tensor& stopped,
                            const GenerationConfig& config,
                            int64_t count,
                            const std::function<bool()>& go_on);

  // Once the prompt is fed: each row stands `repeats` times from now on, one after another.
  void repeat_rows(int64_t repeats);

  cache::KVCache& cache() { return *cache_; }

 private:
  models::ModelInputs prompt_part(int64_t begin, int64_t count);
  at::Tensor last_logits(const models::ModelInputs& inputs);
  void count_on(int64_t tokens);
  void interruption_point();

  models::MistralForCausalLM& model_;
  const Prompt& prompt_;
  std::unique_ptr<cache::KVCache> own_cache_;
  cache::KVCache* cache_;
  const Callbacks& callbacks_;
  std::optional<GrowingColumns> mask_;
  at::Tensor visible_;   // bool [1]
  at::Tensor position_;  // int64 [rows|1, 1], of the last token fed
  DeviceSteps steps_;
};

}  // namespace mistral_ext::generation
