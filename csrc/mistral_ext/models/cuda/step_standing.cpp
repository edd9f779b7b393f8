#include "mistral_ext/models/cuda/step_standing.h"

#include <algorithm>

namespace mistral_ext::models {

int64_t StepStanding::highest_position() const {
  return std::max<int64_t>(caches.front().seen, std::ranges::max(positions));
}

void StepStanding::count_on() {
  for (auto& cache : caches) {
    cache.stored = std::min(cache.stored + 1, cache.capacity);
    cache.slot = cache.slot + 1 == cache.capacity ? 0 : cache.slot + 1;
    ++cache.seen;
  }
  for (int64_t& position : positions) ++position;
}

StepStanding step_standing(cache::KVCache& cache, const StepRows& rows, int64_t& count) {
  StepStanding standing{.caches = {}, .positions = rows.positions, .padding = rows.padding};
  for (int64_t i = 0; i < cache.num_layers(); ++i) {
    const auto slots = cache.layer(i).slots();
    count = std::min(count, slots.room);
    standing.caches.push_back({slots.key.mutable_data_ptr(),
                               slots.value.mutable_data_ptr(),
                               slots.key.stride(0),
                               slots.key.stride(1),
                               static_cast<int>(slots.next),
                               static_cast<int>(slots.stored),
                               static_cast<int>(slots.key.size(2)),
                               static_cast<int>(cache.seen())});
  }
  return standing;
}

}  // namespace mistral_ext::models
