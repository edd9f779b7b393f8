#pragma once

#include "mistral_ext/layers/visibility.h"
#include "mistral_ext/models/inputs.h"

namespace mistral_ext::models {

// Throws ValueError where a tensor of `inputs` does not fit the others or the model; `batch` and
// `seq` are those of the ids or embeddings.
void check_inputs(const ModelInputs& inputs, const MistralConfig& config);

// Throws ValueError where the cache is not one of this model, or holds another batch.
void check_cache(const cache::KVCache& cache, const MistralConfig& config, int64_t batch);

// What the layers with this window see. `layer`: any of them, or null without a cache.
layers::Visibility plan_visibility(const ModelInputs& inputs,
                                   int64_t window,
                                   const cache::KVCacheLayer* layer,
                                   bool differentiable);

}  // namespace mistral_ext::models
