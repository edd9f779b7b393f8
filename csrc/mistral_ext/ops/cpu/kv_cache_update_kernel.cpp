#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "mistral_ext/kernels/cpu/kv_cache_update.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/kv_cache_update.h"

namespace mistral_ext::ops {
namespace {

using kernels::cpu::CacheWrite;

CacheWrite describe(const at::Tensor& cache, const at::Tensor& tokens) {
  const int64_t bytes = cache.element_size();
  return {.cache = static_cast<char*>(cache.mutable_data_ptr()),
          .cache_batch_stride = cache.stride(0) * bytes,
          .cache_head_stride = cache.stride(1) * bytes,
          .cache_slot_stride = cache.stride(2) * bytes,
          .tokens = static_cast<const char*>(tokens.const_data_ptr()),
          .token_batch_stride = tokens.stride(0) * bytes,
          .token_stride = tokens.stride(1) * bytes,
          .token_head_stride = tokens.stride(2) * bytes,
          .kv_heads = cache.size(1),
          .capacity = cache.size(2),
          .row_bytes = cache.size(3) * bytes};
}

void kv_cache_update_cpu_(const at::Tensor& key_cache,
                          const at::Tensor& value_cache,
                          const at::Tensor& key,
                          const at::Tensor& value,
                          c10::SymInt start) {
  check_kv_cache_update(key_cache, value_cache, key, value, start);
  if (!has_dense_rows(key_cache) || !has_dense_rows(value_cache) || !has_dense_rows(key) ||
      !has_dense_rows(value)) {
    kv_cache_update_reference_(key_cache, value_cache, key, value, std::move(start));
    return;
  }
  if (key.numel() == 0) return;
  check_kv_cache_memory(key_cache, value_cache, key, value);
  const CacheWrite keys = describe(key_cache, key);
  const CacheWrite values = describe(value_cache, value);
  const int64_t first = start.guard_int(__FILE__, __LINE__);
  const int64_t length = key.size(1);
  const int64_t lanes = key.size(0) * key.size(2);
  at::parallel_for(0, lanes * length, row_grain(2 * key.size(3)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {  // i = lane * length + token
      const int64_t lane = i / length;
      const int64_t token = i % length;
      const int64_t last = std::min(length, token + end - i);
      kernels::cpu::write_cache(keys, lane, first, token, last);
      kernels::cpu::write_cache(values, lane, first, token, last);
      i += last - token;
    }
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) { m.impl("kv_cache_update_", &kv_cache_update_cpu_); }

}  // namespace mistral_ext::ops
