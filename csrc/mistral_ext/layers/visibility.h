#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace mistral_ext::layers {

// Which keys the queries of one forward pass see, in the terms of ops::attention.
struct Visibility {
  bool is_causal = true;
  int64_t sliding_window = 0;
  std::optional<at::Tensor> mask;
  std::optional<at::Tensor> sequence_ids;
};

}  // namespace mistral_ext::layers
