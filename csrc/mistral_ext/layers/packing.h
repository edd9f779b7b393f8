#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mistral_ext::layers {

// The tokens of a padded batch without the padding, as one row. Places of padding stand for one
// token, the last of the row: they have the same token and see nothing, so all of them are alike.
struct Packing {
  int64_t batch;
  int64_t seq;
  at::Tensor places;  // int64 [tokens]: where each stands in the flattened batch
  at::Tensor tokens;  // int64 [batch * seq]: the token of each place

  // x: [batch, seq, ...] -> [1, tokens, ...]
  at::Tensor pack(const at::Tensor& x) const {
    return x.flatten(0, 1).index_select(0, places).unsqueeze(0);
  }
  // x: [1, tokens, ...] -> [batch, seq, ...]
  at::Tensor unpack(const at::Tensor& x) const {
    return x.squeeze(0).index_select(0, tokens).unflatten(0, {batch, seq});
  }
};

}  // namespace mistral_ext::layers
