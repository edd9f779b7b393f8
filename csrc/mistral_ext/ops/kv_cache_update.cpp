#include "mistral_ext/ops/kv_cache_update.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>

#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
namespace {

constexpr const char* kName = "kv_cache_update_";

bool at_least(const c10::SymInt& value, const c10::SymInt& bound) {
  return value.sym_ge(bound).expect_true(__FILE__, __LINE__);
}

void check_writable(const char* argument, const at::Tensor& cache) {
  MISTRAL_EXT_CHECK(at::has_internal_overlap(cache) != at::MemOverlap::Yes,
                    "{}: {} must have one place in memory for each element, got strides {}",
                    kName,
                    argument,
                    c10::str(cache.sym_strides()));
}

struct Bytes {
  const char* begin;
  const char* end;
};

// From a tensor's first byte to its last; what lies between may belong to others.
Bytes extent(const at::Tensor& x) {
  int64_t last = 0;
  for (int64_t d = 0; d < x.dim(); ++d) last += (x.size(d) - 1) * x.stride(d);
  const auto* begin = static_cast<const char*>(x.const_data_ptr());
  return {begin, begin + (last + 1) * x.element_size()};
}

// Token i goes to slot (start + i) mod capacity: at most two runs of consecutive slots.
struct Run {
  int64_t slot, token, length;
};

std::pair<Run, Run> runs(int64_t start, int64_t length, int64_t capacity) {
  const auto slot = capacity > 0 ? start % capacity : 0;
  const auto first = std::min(length, capacity - slot);
  return {Run{slot, 0, first}, Run{0, first, length - first}};
}

}  // namespace

void check_kv_cache_update(const at::Tensor& key_cache,
                           const at::Tensor& value_cache,
                           const at::Tensor& key,
                           const at::Tensor& value,
                           const c10::SymInt& start) {
  MISTRAL_EXT_CHECK(key_cache.dim() == 4,
                    "{}: key_cache must have 4 dimensions, got shape {}",
                    kName,
                    c10::str(key_cache.sym_sizes()));
  MISTRAL_EXT_CHECK(value_cache.sym_sizes() == key_cache.sym_sizes(),
                    "{}: value_cache must have key_cache's shape {}, got {}",
                    kName,
                    c10::str(key_cache.sym_sizes()),
                    c10::str(value_cache.sym_sizes()));
  check_dtype_and_device(kName, "value_cache", value_cache, "key_cache", key_cache);
  check_dtype_and_device(kName, "key", key, "key_cache", key_cache);
  check_dtype_and_device(kName, "value", value, "key_cache", key_cache);
  check_writable("key_cache", key_cache);
  check_writable("value_cache", value_cache);
  MISTRAL_EXT_CHECK(key.dim() == 4 && key.sym_size(0) == key_cache.sym_size(0) &&
                        key.sym_size(2) == key_cache.sym_size(1) &&
                        key.sym_size(3) == key_cache.sym_size(3),
                    "{}: key must have shape [{}, length, {}, {}], got {}",
                    kName,
                    c10::str(key_cache.sym_size(0)),
                    c10::str(key_cache.sym_size(1)),
                    c10::str(key_cache.sym_size(3)),
                    c10::str(key.sym_sizes()));
  MISTRAL_EXT_CHECK(value.sym_sizes() == key.sym_sizes(),
                    "{}: value must have key's shape {}, got {}",
                    kName,
                    c10::str(key.sym_sizes()),
                    c10::str(value.sym_sizes()));
  MISTRAL_EXT_CHECK(at_least(key_cache.sym_size(2), key.sym_size(1)),
                    "{}: key must have at most the cache's capacity {} of tokens, got {}",
                    kName,
                    c10::str(key_cache.sym_size(2)),
                    c10::str(key.sym_size(1)));
  MISTRAL_EXT_CHECK(at_least(start, 0), "{}: start must be >= 0, got {}", kName, c10::str(start));
}

void check_kv_cache_memory(const at::Tensor& key_cache,
                           const at::Tensor& value_cache,
                           const at::Tensor& key,
                           const at::Tensor& value) {
  if (key_cache.numel() == 0 || key.numel() == 0) return;
  const auto shared = at::get_overlap_status(key_cache, value_cache);
  MISTRAL_EXT_CHECK(shared != at::MemOverlapStatus::Full && shared != at::MemOverlapStatus::Partial,
                    "{}: value_cache must not share key_cache's memory",
                    kName);
  const auto check = [](const char* argument, const at::Tensor& tokens, const at::Tensor& cache) {
    const Bytes a = extent(tokens);
    const Bytes b = extent(cache);
    MISTRAL_EXT_CHECK(a.end <= b.begin || b.end <= a.begin,
                      "{}: {} must not lie in the caches' memory",
                      kName,
                      argument);
  };
  for (const at::Tensor* cache : {&key_cache, &value_cache}) {
    check("key", key, *cache);
    check("value", value, *cache);
  }
}

void check_kv_cache_update_backward(const at::Tensor& grad_cache,
                                    const c10::SymInt& start,
                                    const c10::SymInt& length) {
  MISTRAL_EXT_CHECK(grad_cache.dim() == 4,
                    "kv_cache_update_backward: grad_cache must have 4 dimensions, got shape {}",
                    c10::str(grad_cache.sym_sizes()));
  MISTRAL_EXT_CHECK(
      at_least(start, 0), "kv_cache_update_backward: start must be >= 0, got {}", c10::str(start));
  MISTRAL_EXT_CHECK(at_least(length, 0) && at_least(grad_cache.sym_size(2), length),
                    "kv_cache_update_backward: length must be within 0 and the capacity {}, got {}",
                    c10::str(grad_cache.sym_size(2)),
                    c10::str(length));
}

void kv_cache_update_(const at::Tensor& key_cache,
                      const at::Tensor& value_cache,
                      const at::Tensor& key,
                      const at::Tensor& value,
                      c10::SymInt start) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::kv_cache_update_", "")
                             .typed<decltype(kv_cache_update_)>();
  op.call(key_cache, value_cache, key, value, std::move(start));
}

std::tuple<at::Tensor, at::Tensor> kv_cache_update_backward(const at::Tensor& grad_cache,
                                                            c10::SymInt start,
                                                            c10::SymInt length) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mistral_ext::kv_cache_update_backward", "")
                             .typed<decltype(kv_cache_update_backward)>();
  return op.call(grad_cache, std::move(start), std::move(length));
}

// The reference in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
void kv_cache_update_reference_(const at::Tensor& key_cache,
                                const at::Tensor& value_cache,
                                const at::Tensor& key,
                                const at::Tensor& value,
                                c10::SymInt start) {
  check_kv_cache_update(key_cache, value_cache, key, value, start);
  check_kv_cache_memory(key_cache, value_cache, key, value);
  const auto [head, tail] =
      runs(start.guard_int(__FILE__, __LINE__), key.size(1), key_cache.size(2));
  const auto write = [](const at::Tensor& cache, const at::Tensor& tokens, const Run& run) {
    if (run.length == 0) return;
    cache.narrow(2, run.slot, run.length)
        .copy_(tokens.narrow(1, run.token, run.length).transpose(1, 2));
  };
  for (const auto& run : {head, tail}) {
    write(key_cache, key, run);
    write(value_cache, value, run);
  }
}

namespace {

std::tuple<at::Tensor, at::Tensor> kv_cache_update_backward_reference(const at::Tensor& grad_cache,
                                                                      c10::SymInt start,
                                                                      c10::SymInt length) {
  check_kv_cache_update_backward(grad_cache, start, length);
  auto grad = grad_cache.clone(at::MemoryFormat::Contiguous);
  auto grad_tokens =
      at::empty({grad.size(0), length.guard_int(__FILE__, __LINE__), grad.size(1), grad.size(3)},
                grad.options());
  const auto [head, tail] =
      runs(start.guard_int(__FILE__, __LINE__), grad_tokens.size(1), grad.size(2));
  for (const auto& run : {head, tail}) {
    if (run.length == 0) continue;
    const auto slots = grad.narrow(2, run.slot, run.length);
    grad_tokens.narrow(1, run.token, run.length).copy_(slots.transpose(1, 2));
    slots.zero_();
  }
  return {grad, grad_tokens};
}

void kv_cache_update_meta_(const at::Tensor& key_cache,
                           const at::Tensor& value_cache,
                           const at::Tensor& key,
                           const at::Tensor& value,
                           c10::SymInt start) {
  check_kv_cache_update(key_cache, value_cache, key, value, start);
}

std::tuple<at::Tensor, at::Tensor> kv_cache_update_backward_meta(const at::Tensor& grad_cache,
                                                                 c10::SymInt start,
                                                                 c10::SymInt length) {
  check_kv_cache_update_backward(grad_cache, start, length);
  return {at::empty_symint(grad_cache.sym_sizes(), grad_cache.options()),
          at::empty_symint({grad_cache.sym_size(0),
                            std::move(length),
                            grad_cache.sym_size(1),
                            grad_cache.sym_size(3)},
                           grad_cache.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("kv_cache_update_", &kv_cache_update_reference_);
  m.impl("kv_cache_update_backward", &kv_cache_update_backward_reference);
}

TORCH_LIBRARY_IMPL(mistral_ext, Meta, m) {
  m.impl("kv_cache_update_", &kv_cache_update_meta_);
  m.impl("kv_cache_update_backward", &kv_cache_update_backward_meta);
}

}  // namespace mistral_ext::ops
