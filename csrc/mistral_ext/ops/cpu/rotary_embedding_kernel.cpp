#include <ATen/Parallel.h>
#include <torch/library.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/kernels/cpu/rotary_embedding.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/rotary_embedding.h"

namespace mistral_ext::ops {
namespace {

// A [batch or 1, seq] tensor, read by token.
template <typename T>
class ByToken {
 public:
  ByToken(const at::Tensor& x, int64_t batch)
      : data_(data<T>(x)),
        batch_stride_(x.size(0) == 1 && batch != 1 ? 0 : x.stride(0)),
        seq_stride_(x.stride(1)) {}

  T operator()(int64_t b, int64_t s) const { return data_[b * batch_stride_ + s * seq_stride_]; }

 private:
  const T* data_;
  int64_t batch_stride_;
  int64_t seq_stride_;
};

std::tuple<at::Tensor, at::Tensor> rotate_both(const char* name,
                                               const at::Tensor& query,
                                               const at::Tensor& key,
                                               const at::Tensor& positions,
                                               const at::Tensor& cos_sin,
                                               const std::optional<at::Tensor>& query_scale,
                                               bool backward) {
  check_rotary_embedding(name, query, key, positions, cos_sin, query_scale);
  const int64_t batch = query.size(0);
  const int64_t seq = query.size(1);
  const int64_t head_dim = query.size(3);
  const int64_t table = cos_sin.size(0);
  const ByToken<int64_t> position(positions, batch);
  for (int64_t b = 0; b < positions.size(0); ++b) {
    for (int64_t s = 0; s < seq; ++s) {
      MISTRAL_EXT_CHECK(position(b, s) >= 0 && position(b, s) < table,
                        "{}: positions must lie in [0, {}), got {}",
                        name,
                        table,
                        position(b, s));
    }
  }

  const auto queries = with_dense_rows(query);
  const auto keys = with_dense_rows(key);
  const auto angles = cos_sin.expect_contiguous();
  const float* from_angles = data<float>(*angles);
  std::optional<ByToken<float>> scale;
  if (query_scale.has_value()) scale.emplace(*query_scale, batch);
  auto rotated_query = empty_cpu(query.sizes(), query);
  auto rotated_key = empty_cpu(key.sizes(), key);
  dispatch_float(query.scalar_type(), [&]<typename T>(Type<T>) {
    const auto kernel = MISTRAL_EXT_AT_LEVEL(rotate_heads<T>);
    const auto rotate = [&](const at::Tensor& x, T* to, int64_t b, int64_t s, float factor) {
      kernel(data<T>(x) + b * x.stride(0) + s * x.stride(1),
             x.stride(2),
             to + (b * seq + s) * x.size(2) * head_dim,
             x.size(2),
             head_dim,
             from_angles + position(b, s) * head_dim,
             backward,
             factor);
    };
    T* to_query = mutable_data<T>(rotated_query);
    T* to_key = mutable_data<T>(rotated_key);
    const int64_t grain = row_grain((query.size(2) + key.size(2)) * head_dim);
    at::parallel_for(0, batch * seq, grain, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        const int64_t b = token / seq;
        const int64_t s = token % seq;
        rotate(queries, to_query, b, s, scale.has_value() ? (*scale)(b, s) : 1.0f);
        rotate(keys, to_key, b, s, 1.0f);
      }
    });
  });
  return {std::move(rotated_query), std::move(rotated_key)};
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_cpu(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  return rotate_both(
      "rotary_embedding", query, key, positions, cos_sin, query_scale, /*backward=*/false);
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward_cpu(
    const at::Tensor& grad_query,
    const at::Tensor& grad_key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  return rotate_both("rotary_embedding_backward",
                     grad_query,
                     grad_key,
                     positions,
                     cos_sin,
                     query_scale,
                     /*backward=*/true);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("rotary_embedding", &rotary_embedding_cpu);
  m.impl("rotary_embedding_backward", &rotary_embedding_backward_cpu);
}

}  // namespace mistral_ext::ops
