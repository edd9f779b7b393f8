#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "mistral_ext/generation/generation_config.h"
#include "mistral_ext/generation/prompt.h"
#include "mistral_ext/models/token_steps.h"

namespace mistral_ext::generation {

// The steps behind a prompt as an accelerator makes them by itself, where it can: its rows are
// padded on the left or not at all. model must outlive it.
class DeviceSteps {
 public:
  DeviceSteps(models::MistralForCausalLM& model, const Prompt& prompt);
  DeviceSteps(const DeviceSteps&) = delete;
  DeviceSteps& operator=(const DeviceSteps&) = delete;
  ~DeviceSteps();

  // Once the prompt is fed: each row stands `repeats` times, one after another.
  void repeat_rows(int64_t repeats);

  // Of both: undefined where the device cannot, and nothing has been done then.
  //   tokens: int64 [batch], the newest.

  // Logits of one more token, fp32 [batch, vocab_size].
  at::Tensor logits(cache::KVCache& cache, const at::Tensor& tokens);
  // The likeliest `count` more tokens of each row or fewer: int64 [batch, made]; see
  // models::TokenSteps::run.
  //   stopped: bool [batch], on the CPU, brought up to date.
  at::Tensor likeliest(cache::KVCache& cache,
                       const at::Tensor& tokens,
                       const at::Tensor& stopped,
                       const GenerationConfig& config,
                       int64_t count,
                       const std::function<bool()>& go_on);

 private:
  models::TokenSteps* steps();  // or null
  models::StepRows rows(const cache::KVCache& cache, const at::Tensor& tokens) const;
  void give_back();

  models::MistralForCausalLM& model_;
  int64_t prompt_tokens_;  // of a row, padding and cached ones included
  // Of each row; none where the device cannot.
  std::vector<int64_t> positions_;  // of its first new token
  std::vector<int64_t> padding_;
  std::optional<models::TokenStepsPool::Taken> taken_;  // absent: not asked for yet
};

}  // namespace mistral_ext::generation
