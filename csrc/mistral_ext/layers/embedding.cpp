#include "mistral_ext/layers/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/embedding.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::layers {
namespace {

// On an accelerator this waits for the device.
void check_ids(const at::Tensor& input_ids, int64_t num_embeddings) {
  const bool checks = input_ids.numel() > 0 && (input_ids.is_cpu() || input_ids.size(-1) > 1);
  if (!checks || input_ids.is_meta()) return;
  const auto [low, high] = at::aminmax(input_ids);
  const int64_t lowest = low.item<int64_t>();
  const int64_t highest = high.item<int64_t>();
  MISTRAL_EXT_CHECK(lowest >= 0 && highest < num_embeddings,
                    "input_ids must be in [0, {}), got {}",
                    num_embeddings,
                    lowest < 0 ? lowest : highest);
}

}  // namespace

at::Tensor vocab_parallel_embedding(const at::Tensor& input_ids,
                                    const at::Tensor& weight,
                                    int64_t padding_idx,
                                    const parallel::Context& context) {
  const int64_t rows = weight.size(0);
  check_ids(input_ids, rows * context.size());
  const int64_t begin = context.rank() * rows;
  const auto local = input_ids - begin;
  const auto elsewhere = local.lt(0).logical_or_(local.ge(rows));
  const bool has_padding = padding_idx >= begin && padding_idx < begin + rows;
  const auto own = at::embedding(
      weight, local.masked_fill(elsewhere, 0), has_padding ? padding_idx - begin : -1);
  return parallel::all_reduce(own.masked_fill(elsewhere.unsqueeze(-1), 0), context);
}

Embedding::Embedding(int64_t num_embeddings,
                     int64_t embedding_dim,
                     std::optional<int64_t> padding_idx,
                     const parallel::Context& context)
    : WeightedModule("Embedding",
                     {num_embeddings, embedding_dim},
                     parallel::ShardSpec::column_parallel(context)),
      context_(context),
      // -1 is at::embedding's "none"
      padding_idx_(!padding_idx       ? -1
                   : *padding_idx < 0 ? *padding_idx + num_embeddings
                                      : *padding_idx) {}

at::Tensor Embedding::forward(const at::Tensor& input_ids) const {
  if (context_.is_sharded()) {
    return vocab_parallel_embedding(input_ids, weight(), padding_idx_, context_);
  }
  check_ids(input_ids, weight().size(0));
  return at::embedding(weight(), input_ids, padding_idx_);
}

}  // namespace mistral_ext::layers
