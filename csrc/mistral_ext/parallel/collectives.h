#pragma once

#include <ATen/core/Tensor.h>

#include "mistral_ext/parallel/context.h"
#include "mistral_ext/parallel/shard_spec.h"

// Collectives among the ranks of a context, each called by all of them in the same order. With one
// rank they return their argument. A failure throws c10::DistBackendError that names the ranks
// which did not answer.
//
// The gradients are those of Megatron-LM's pair (Shoeybi et al. 2019, arXiv 1909.08053): tensors
// outside of the pair are the same on every rank, and so are their gradients.
namespace mistral_ext::parallel {

// Where a product that is split over the ranks begins: x itself, whose gradients are summed over
// the ranks.
at::Tensor copy_to_ranks(const at::Tensor& x, const Context& context);

// Where it ends: the sum of the ranks' x, which is overwritten by it. The gradient passes as it is.
at::Tensor all_reduce(const at::Tensor& x, const Context& context);

// The ranks' x, [..., n] each, beside each other: [..., n * ranks]. The gradient is this rank's
// part of the result's.
at::Tensor all_gather_last(const at::Tensor& x, const Context& context);

// A weight that several ranks hold, and each uses for queries of its own: itself, with the
// gradients of those ranks summed.
at::Tensor sum_gradients_of_replicas(const at::Tensor& weight,
                                     const ShardSpec& spec,
                                     const Context& context);

// Below: no gradients.

// The ranks' x, of equal shapes: [ranks, ...].
at::Tensor all_gather(const at::Tensor& x, const Context& context);

// The largest entries among the ranks' x, which is overwritten.
void all_reduce_max_(at::Tensor& x, const Context& context);

// Rank 0's x, for all.
void broadcast_(at::Tensor& x, const Context& context);

// The whole of which every rank has a part.
at::Tensor gather_shards(const at::Tensor& part, const ShardSpec& spec, const Context& context);

}  // namespace mistral_ext::parallel
