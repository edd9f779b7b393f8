#pragma once

#include "mistral_ext/models/decoder_layer.h"

namespace mistral_ext::models {

// What `layer` makes of hidden_states, keeping for the backward nothing but them: the backward runs
// the layer a second time (gradient checkpointing; Chen et al. 2016, arXiv 1604.06174).
//   hidden_states: [batch, seq, hidden_size], the residual stream's value -> the same after it.
//   config, ranks: what the layer was made with. context: without a cache.
// The weights are those of now, whatever the layer holds when the backward comes. Differentiable
// once, in hidden_states and the layer's weights.
at::Tensor forward_checkpointed(const DecoderLayer& layer,
                                const MistralConfig& config,
                                const parallel::Context& ranks,
                                const at::Tensor& hidden_states,
                                const LayerContext& context);

}  // namespace mistral_ext::models
