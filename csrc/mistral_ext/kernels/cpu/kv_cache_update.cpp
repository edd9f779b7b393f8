#include "mistral_ext/kernels/cpu/kv_cache_update.h"

#include <cstring>

namespace mistral_ext::kernels::cpu {

void write_cache(const CacheWrite& write, int64_t lane, int64_t start, int64_t begin, int64_t end) {
  const int64_t batch = lane / write.kv_heads;
  const int64_t head = lane % write.kv_heads;
  char* const cache =
      write.cache + batch * write.cache_batch_stride + head * write.cache_head_stride;
  const char* tokens =
      write.tokens + batch * write.token_batch_stride + head * write.token_head_stride;
  int64_t slot = (start % write.capacity + begin) % write.capacity;
  for (int64_t i = begin; i < end; ++i) {
    std::memcpy(
        cache + slot * write.cache_slot_stride, tokens + i * write.token_stride, write.row_bytes);
    if (++slot == write.capacity) slot = 0;
  }
}

}  // namespace mistral_ext::kernels::cpu
