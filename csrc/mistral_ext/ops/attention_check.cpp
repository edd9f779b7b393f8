#include <cmath>

#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
namespace {

// Whether a dimension of a mask is `size`, or 1 and so broadcast.
bool fits(const c10::SymInt& given, const c10::SymInt& size) { return given == size || given == 1; }

void check_dimensions(const char* name, const char* argument, const at::Tensor& x, int64_t dim) {
  MISTRAL_EXT_CHECK(x.dim() == dim,
                    "{}: {} must have {} dimensions, got shape {}",
                    name,
                    argument,
                    dim,
                    c10::str(x.sym_sizes()));
}

void check_mask(const char* name,
                const at::Tensor& mask,
                const at::Tensor& query,
                const at::Tensor& key) {
  const auto type = mask.scalar_type();
  check_device(name, "mask", mask, "query", query);
  if (mask.dim() == 2) {
    MISTRAL_EXT_CHECK(c10::isIntegralType(type, /*includeBool=*/true),
                      "{}: mask of 2 dimensions must be bool or integer, got {}",
                      name,
                      c10::toString(type));
    MISTRAL_EXT_CHECK(
        fits(mask.sym_size(0), query.sym_size(0)) && mask.sym_size(1) == key.sym_size(1),
        "{}: mask of 2 dimensions must have shape [{}, {}], got {}",
        name,
        c10::str(query.sym_size(0)),
        c10::str(key.sym_size(1)),
        c10::str(mask.sym_sizes()));
    return;
  }
  MISTRAL_EXT_CHECK(mask.dim() == 4,
                    "{}: mask must have 2 or 4 dimensions, got shape {}",
                    name,
                    c10::str(mask.sym_sizes()));
  MISTRAL_EXT_CHECK(
      type == at::kBool || is_float_dtype(type),
      "{}: mask of 4 dimensions must be bool, float32, bfloat16, float16 or float64, got {}",
      name,
      c10::toString(type));
  MISTRAL_EXT_CHECK(
      fits(mask.sym_size(0), query.sym_size(0)) && fits(mask.sym_size(1), query.sym_size(2)) &&
          fits(mask.sym_size(2), query.sym_size(1)) && fits(mask.sym_size(3), key.sym_size(1)),
      "{}: mask of 4 dimensions must have shape [{}, {}, {}, {}] or 1 in their place, got {}",
      name,
      c10::str(query.sym_size(0)),
      c10::str(query.sym_size(2)),
      c10::str(query.sym_size(1)),
      c10::str(key.sym_size(1)),
      c10::str(mask.sym_sizes()));
}

}  // namespace

void check_attention(const char* name,
                     const at::Tensor& query,
                     const at::Tensor& key,
                     const at::Tensor& value,
                     double scale,
                     [[maybe_unused]] bool is_causal,
                     int64_t sliding_window,
                     const std::optional<at::Tensor>& mask,
                     const std::optional<at::Tensor>& sequence_ids) {
  check_dimensions(name, "query", query, 4);
  check_float(name, "query", query);
  check_dimensions(name, "key", key, 4);
  check_dtype_and_device(name, "key", key, "query", query);
  check_dtype_and_device(name, "value", value, "query", query);
  MISTRAL_EXT_CHECK(key.sym_size(0) == query.sym_size(0) && key.sym_size(3) == query.sym_size(3),
                    "{}: key must have query's batch {} and head_dim {}, got shape {}",
                    name,
                    c10::str(query.sym_size(0)),
                    c10::str(query.sym_size(3)),
                    c10::str(key.sym_sizes()));
  MISTRAL_EXT_CHECK(key.sym_size(2) > 0 && query.sym_size(2) % key.sym_size(2) == 0,
                    "{}: key must have a number of heads that divides query's {}, got {}",
                    name,
                    c10::str(query.sym_size(2)),
                    c10::str(key.sym_size(2)));
  MISTRAL_EXT_CHECK(key.sym_size(1) >= query.sym_size(1),
                    "{}: key must have at least query's {} tokens, got {}",
                    name,
                    c10::str(query.sym_size(1)),
                    c10::str(key.sym_size(1)));
  MISTRAL_EXT_CHECK(value.sym_sizes() == key.sym_sizes(),
                    "{}: value must have key's shape {}, got {}",
                    name,
                    c10::str(key.sym_sizes()),
                    c10::str(value.sym_sizes()));
  MISTRAL_EXT_CHECK(std::isfinite(scale), "{}: scale must be finite, got {}", name, scale);
  MISTRAL_EXT_CHECK(
      sliding_window >= 0, "{}: sliding_window must be >= 0, got {}", name, sliding_window);
  if (mask.has_value()) check_mask(name, *mask, query, key);
  if (sequence_ids.has_value()) {
    MISTRAL_EXT_CHECK(sequence_ids->scalar_type() == at::kLong,
                      "{}: sequence_ids must be int64, got {}",
                      name,
                      c10::toString(sequence_ids->scalar_type()));
    check_device(name, "sequence_ids", *sequence_ids, "query", query);
    MISTRAL_EXT_CHECK(sequence_ids->dim() == 2 &&
                          fits(sequence_ids->sym_size(0), query.sym_size(0)) &&
                          sequence_ids->sym_size(1) == key.sym_size(1),
                      "{}: sequence_ids must have shape [{}, {}], got {}",
                      name,
                      c10::str(query.sym_size(0)),
                      c10::str(key.sym_size(1)),
                      c10::str(sequence_ids->sym_sizes()));
  }
}

void check_attention_backward(const at::Tensor& grad_output,
                              const at::Tensor& query,
                              const at::Tensor& key,
                              const at::Tensor& value,
                              const at::Tensor& output,
                              const at::Tensor& logsumexp,
                              double scale,
                              bool is_causal,
                              int64_t sliding_window,
                              const std::optional<at::Tensor>& mask,
                              const std::optional<at::Tensor>& sequence_ids) {
  constexpr const char* kName = "attention_backward";
  check_attention(kName, query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  check_like(kName, "grad_output", grad_output, "query", query);
  check_like(kName, "output", output, "query", query);
  MISTRAL_EXT_CHECK(logsumexp.scalar_type() == accumulation_dtype(query),
                    "{}: logsumexp must be {}, got {}",
                    kName,
                    c10::toString(accumulation_dtype(query)),
                    c10::toString(logsumexp.scalar_type()));
  check_device(kName, "logsumexp", logsumexp, "query", query);
  MISTRAL_EXT_CHECK(logsumexp.dim() == 3 && logsumexp.sym_size(0) == query.sym_size(0) &&
                        logsumexp.sym_size(1) == query.sym_size(2) &&
                        logsumexp.sym_size(2) == query.sym_size(1),
                    "{}: logsumexp must have shape [{}, {}, {}], got {}",
                    kName,
                    c10::str(query.sym_size(0)),
                    c10::str(query.sym_size(2)),
                    c10::str(query.sym_size(1)),
                    c10::str(logsumexp.sym_sizes()));
}

}  // namespace mistral_ext::ops
