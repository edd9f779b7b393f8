#pragma once

#include <cstdint>
#include <vector>

#include "mistral_ext/cache/kv_cache.h"
#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/models/token_steps.h"

namespace mistral_ext::models {

// What a device has to be told before a token, and then counts on by itself.
struct StepStanding {
  std::vector<kernels::cuda::StepCache> caches;
  std::vector<int64_t> positions;
  std::vector<int64_t> padding;

  bool operator==(const StepStanding&) const = default;

  int64_t highest_position() const;
  // As the device does after a token.
  void count_on();
};

// Makes room in the cache for one token at least; `count` is brought down to what there is room
// for.
StepStanding step_standing(cache::KVCache& cache, const StepRows& rows, int64_t& count);

}  // namespace mistral_ext::models
