#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mistral_ext::kernels::cuda {

// One of key and value: tokens [batch, length, kv_heads, row] go into a cache [batch, kv_heads,
// capacity, row], where a row of head_dim elements lies side by side. Strides in bytes.
struct CacheWrite {
  char* cache;
  int64_t cache_batch_stride, cache_head_stride, cache_slot_stride;
  const char* tokens;
  int64_t token_batch_stride, token_stride, token_head_stride;
};

struct KVCacheUpdate {
  CacheWrite key;
  CacheWrite value;
  int64_t batch, length, kv_heads;
  int64_t capacity;  // slots
  int64_t row_bytes;
  int64_t start;  // token i goes to slot (start + i) mod capacity; length <= capacity
};

// Returns what the launch returned.
cudaError_t kv_cache_update(const KVCacheUpdate& args, cudaStream_t stream);

}  // namespace mistral_ext::kernels::cuda
