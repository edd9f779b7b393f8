#include "mistral_ext/generation/stream_tokens.h"

#include <ATen/ops/ones.h>

#include <utility>

#include "mistral_ext/core/check.h"

namespace mistral_ext::generation {

std::function<at::Tensor(const Step&)> stream_tokens(std::function<bool(int64_t token)> on_token) {
  MISTRAL_EXT_CHECK(on_token != nullptr, "stream_tokens: on_token must be a function, got none");
  return [on_token = std::move(on_token)](const Step& step) {
    MISTRAL_EXT_CHECK(step.tokens.numel() == 1,
                      "stream_tokens: the batch must have one row, got {}",
                      step.tokens.numel());
    return on_token(step.tokens.item<int64_t>()) ? at::Tensor() : at::ones({1}, at::kBool);
  };
}

}  // namespace mistral_ext::generation
