#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/prompt.h"
#include "mistral_ext/models/token_steps.h"

namespace mistral_ext::generation {

// The steps of a loop that an accelerator can make by itself: each token the likeliest, nothing to
// be known of the steps but their tokens, padding on the left alone.
class DeviceSteps {
 public:
  DeviceSteps(models::MistralForCausalLM& model,
              const GenerationConfig& config,
              const Prompt& prompt);
  DeviceSteps(const DeviceSteps&) = delete;
  DeviceSteps& operator=(const DeviceSteps&) = delete;
  ~DeviceSteps();

  // Up to `count` more tokens of each row: int64 [batch, made]; see models::TokenSteps::run.
  // Undefined where the device cannot, and nothing has been done then.
  //   tokens: int64 [batch], the newest. stopped: bool [batch], on the CPU, brought up to date.
  at::Tensor run(cache::KVCache& cache,
                 const at::Tensor& tokens,
                 const at::Tensor& stopped,
                 int64_t count,
                 const std::function<bool()>& go_on);

 private:
  models::TokenStepsPool& pool_;
  const GenerationConfig& config_;
  int64_t batch_;
  int64_t prompt_tokens_;           // of a row, padding and cached ones included
  std::vector<int64_t> positions_;  // of each row's first new token
  std::vector<int64_t> padding_;
  std::optional<models::TokenStepsPool::Taken> taken_;  // absent: not asked for
};

}  // namespace mistral_ext::generation
