#pragma once

#include <cstdint>

namespace mistral_ext::kernels::cpu {

// One of key and value: tokens [batch, length, kv_heads, row] go into a cache [batch, kv_heads,
// capacity, row], where a row of head_dim elements lies side by side. Strides in bytes.
struct CacheWrite {
  char* cache;
  int64_t cache_batch_stride, cache_head_stride, cache_slot_stride;
  const char* tokens;
  int64_t token_batch_stride, token_stride, token_head_stride;
  int64_t kv_heads, capacity, row_bytes;
};

// Copies token i to slot (start + i) mod capacity for tokens [begin, end) of sequence and head
// `lane` = batch * kv_heads + head.
void write_cache(const CacheWrite& write, int64_t lane, int64_t start, int64_t begin, int64_t end);

}  // namespace mistral_ext::kernels::cpu
