#include "mistral_ext/layers/embedding.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/embedding.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::layers {

Embedding::Embedding(int64_t num_embeddings,
                     int64_t embedding_dim,
                     std::optional<int64_t> padding_idx)
    : WeightedModule("Embedding", {num_embeddings, embedding_dim}),
      // -1 is at::embedding's "none"
      padding_idx_(!padding_idx       ? -1
                   : *padding_idx < 0 ? *padding_idx + num_embeddings
                                      : *padding_idx) {}

at::Tensor Embedding::forward(const at::Tensor& input_ids) const {
  const int64_t rows = weight().size(0);
  const bool checks = input_ids.numel() > 0 && (input_ids.is_cpu() || input_ids.size(-1) > 1);
  if (checks && !input_ids.is_meta()) {
    const auto [low, high] = at::aminmax(input_ids);
    const int64_t lowest = low.item<int64_t>();
    const int64_t highest = high.item<int64_t>();
    MISTRAL_EXT_CHECK(lowest >= 0 && highest < rows,
                      "input_ids must be in [0, {}), got {}",
                      rows,
                      lowest < 0 ? lowest : highest);
  }
  return at::embedding(weight(), input_ids, padding_idx_);
}

}  // namespace mistral_ext::layers
