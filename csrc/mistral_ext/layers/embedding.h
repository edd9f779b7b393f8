#pragma once

#include <optional>

#include "mistral_ext/layers/weighted_module.h"
#include "mistral_ext/parallel/context.h"

namespace mistral_ext::layers {

// A table that is spread over the ranks by its rows: weight is this rank's part of them. The rows
// of input_ids, on every rank. A collective. Throws ValueError as Embedding::forward.
//   padding_idx: a row of the whole table that gets no gradient, or -1.
at::Tensor vocab_parallel_embedding(const at::Tensor& input_ids,
                                    const at::Tensor& weight,
                                    int64_t padding_idx,
                                    const parallel::Context& context);

// weight: [num_embeddings, embedding_dim]
class Embedding : public WeightedModule {
 public:
  // padding_idx: a row that gets no gradient, or none. Counted from the end where negative.
  //   context: the ranks over which the table is spread by its rows.
  Embedding(int64_t num_embeddings,
            int64_t embedding_dim,
            std::optional<int64_t> padding_idx,
            const parallel::Context& context = {});

  // input_ids: int64 or int32 [batch, seq] -> [batch, seq, embedding_dim]. Throws ValueError where
  // an id is outside the table. On an accelerator that check would wait for the device, so it is
  // made only where more than one token a row comes in (a prompt); a single token is what a model
  // sampled.
  at::Tensor forward(const at::Tensor& input_ids) const;

 private:
  parallel::Context context_;
  int64_t padding_idx_;
};

}  // namespace mistral_ext::layers
