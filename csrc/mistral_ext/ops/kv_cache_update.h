#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <tuple>

namespace mistral_ext::ops {

// Writes token i of key and value into slot (start + i) mod capacity of the caches, in place: an
// append to a preallocated buffer, or to the ring that a sliding window keeps. O(new tokens).
//   key_cache, value_cache: [batch, kv_heads, capacity, head_dim], any strides.
//   key, value: [batch, length, kv_heads, head_dim], length <= capacity, the caches' dtype and
//     device, any strides.
//   start: 0 <= start; for a plain buffer also start + length <= capacity.
// Throws ValueError where something does not fit. Differentiable: the overwritten slots of the
// caches get no gradient, key and value get theirs.
void kv_cache_update_(const at::Tensor& key_cache,
                      const at::Tensor& value_cache,
                      const at::Tensor& key,
                      const at::Tensor& value,
                      c10::SymInt start);

// The gradient of one cache and of the tokens written into it: returns grad_cache with the
// overwritten slots zero, and those slots as [batch, length, kv_heads, head_dim].
//   grad_cache: [batch, kv_heads, capacity, head_dim], the gradient of the cache after the update.
std::tuple<at::Tensor, at::Tensor> kv_cache_update_backward(const at::Tensor& grad_cache,
                                                            c10::SymInt start,
                                                            c10::SymInt length);

// kv_cache_update_ in plain ATen, checks included: also for strides that a backend hands on.
void kv_cache_update_reference_(const at::Tensor& key_cache,
                                const at::Tensor& value_cache,
                                const at::Tensor& key,
                                const at::Tensor& value,
                                c10::SymInt start);

// What every backend, Meta included, calls first.
void check_kv_cache_update(const at::Tensor& key_cache,
                           const at::Tensor& value_cache,
                           const at::Tensor& key,
                           const at::Tensor& value,
                           const c10::SymInt& start);
// The caches and the tokens lie apart. For backends with memory: Meta does not call it.
void check_kv_cache_memory(const at::Tensor& key_cache,
                           const at::Tensor& value_cache,
                           const at::Tensor& key,
                           const at::Tensor& value);
void check_kv_cache_update_backward(const at::Tensor& grad_cache,
                                    const c10::SymInt& start,
                                    const c10::SymInt& length);

}  // namespace mistral_ext::ops
