#include <torch/library.h>

#include "mistral_ext/kernels/cuda/kv_cache_update.h"
#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cuda/launch.h"
#include "mistral_ext/ops/kv_cache_update.h"

namespace mistral_ext::ops {
namespace {

kernels::cuda::CacheWrite describe(const at::Tensor& cache, const at::Tensor& tokens) {
  const int64_t bytes = cache.element_size();
  return {.cache = static_cast<char*>(cache.mutable_data_ptr()),
          .cache_batch_stride = cache.stride(0) * bytes,
          .cache_head_stride = cache.stride(1) * bytes,
          .cache_slot_stride = cache.stride(2) * bytes,
          .tokens = static_cast<const char*>(tokens.const_data_ptr()),
          .token_batch_stride = tokens.stride(0) * bytes,
          .token_stride = tokens.stride(1) * bytes,
          .token_head_stride = tokens.stride(2) * bytes};
}

void kv_cache_update_cuda_(const at::Tensor& key_cache,
                           const at::Tensor& value_cache,
                           const at::Tensor& key,
                           const at::Tensor& value,
                           c10::SymInt start) {
  check_kv_cache_update(key_cache, value_cache, key, value, start);
  if (!is_float_dtype(key.scalar_type()) || !has_dense_rows(key_cache) ||
      !has_dense_rows(value_cache) || !has_dense_rows(key) || !has_dense_rows(value)) {
    kv_cache_update_reference_(key_cache, value_cache, key, value, std::move(start));
    return;
  }
  if (key.numel() == 0) return;
  check_kv_cache_memory(key_cache, value_cache, key, value);
  const OnDeviceOf device(key);
  C10_CUDA_CHECK(kernels::cuda::kv_cache_update({.key = describe(key_cache, key),
                                                 .value = describe(value_cache, value),
                                                 .batch = key.size(0),
                                                 .length = key.size(1),
                                                 .kv_heads = key.size(2),
                                                 .capacity = key_cache.size(2),
                                                 .row_bytes = key.size(3) * key.element_size(),
                                                 .start = start.guard_int(__FILE__, __LINE__)},
                                                device.stream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) { m.impl("kv_cache_update_", &kv_cache_update_cuda_); }

}  // namespace mistral_ext::ops
