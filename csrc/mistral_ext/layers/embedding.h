#pragma once

#include <optional>

#include "mistral_ext/layers/weighted_module.h"

namespace mistral_ext::layers {

// weight: [num_embeddings, embedding_dim]
class Embedding : public WeightedModule {
 public:
  // padding_idx: a row that gets no gradient, or none. Counted from the end where negative.
  Embedding(int64_t num_embeddings, int64_t embedding_dim, std::optional<int64_t> padding_idx);

  // input_ids: int64 or int32 [batch, seq] -> [batch, seq, embedding_dim]. Throws ValueError where
  // an id is outside the table. On an accelerator that check would wait for the device, so it is
  // made only where more than one token a row comes in (a prompt); a single token is what a model
  // sampled.
  at::Tensor forward(const at::Tensor& input_ids) const;

 private:
  int64_t padding_idx_;
};

}  // namespace mistral_ext::layers
