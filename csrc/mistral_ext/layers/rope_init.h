#pragma once

#include <ATen/core/Tensor.h>

#include "mistral_ext/core/config.h"

namespace mistral_ext::layers {

struct RopeFrequencies {
  at::Tensor inv_freq;            // fp32 [head_dim / 2]
  double attention_factor = 1.0;  // multiplies cosine and sine
};

// The inverse frequencies of the config's rope type, with the operations of the reference in its
// order, so that they agree to the bit:
//   default  theta^(-2i/head_dim)                  Su et al. 2021, arXiv 2104.09864
//   linear   default / factor                      position interpolation, Chen et al., 2306.15595
//   dynamic  theta grown with seq_len beyond max_position_embeddings (NTK-aware)
//   yarn     blend of default and linear by frequency, Peng et al. 2023, arXiv 2309.00071
//   llama3   long wavelengths divided by factor, a smooth passage between
//   seq_len: read by `dynamic` alone.
RopeFrequencies rope_frequencies(const MistralConfig& config,
                                 int64_t seq_len,
                                 const at::Device& device);

}  // namespace mistral_ext::layers
