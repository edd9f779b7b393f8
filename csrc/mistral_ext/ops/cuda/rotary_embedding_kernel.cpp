#include <torch/library.h>

#include "mistral_ext/kernels/cuda/rotary_embedding.h"
#include "mistral_ext/ops/cuda/launch.h"
#include "mistral_ext/ops/rotary_embedding.h"

namespace mistral_ext::ops {
namespace {

template <typename T>
kernels::cuda::ByToken<T> by_token(const at::Tensor& x, int64_t batch) {
  return {.data = data<T>(x),
          .batch_stride = x.size(0) == 1 && batch != 1 ? 0 : x.stride(0),
          .seq_stride = x.stride(1)};
}

template <typename T>
kernels::cuda::HeadsToRotate<T> heads_to_rotate(const at::Tensor& x, at::Tensor& y) {
  return {.x = data<T>(x),
          .batch_stride = x.stride(0),
          .seq_stride = x.stride(1),
          .head_stride = x.stride(2),
          .y = mutable_data<T>(y),
          .heads = x.size(2)};
}

std::tuple<at::Tensor, at::Tensor> rotate_both(const char* name,
                                               const at::Tensor& query,
                                               const at::Tensor& key,
                                               const at::Tensor& positions,
                                               const at::Tensor& cos_sin,
                                               const std::optional<at::Tensor>& query_scale,
                                               bool backward) {
  check_rotary_embedding(name, query, key, positions, cos_sin, query_scale);
  const OnDeviceOf device(query);
  const int64_t batch = query.size(0);
  const auto queries = with_dense_rows(query);
  const auto keys = with_dense_rows(key);
  const auto angles = cos_sin.expect_contiguous();
  auto rotated_query = empty_cuda(query.sizes(), query);
  auto rotated_key = empty_cuda(key.sizes(), key);
  dispatch_float(query.scalar_type(), [&]<typename T>(Type<T>) {
    kernels::cuda::RotaryEmbedding<T> args{.query = heads_to_rotate<T>(queries, rotated_query),
                                           .key = heads_to_rotate<T>(keys, rotated_key),
                                           .batch = batch,
                                           .seq = query.size(1),
                                           .head_dim = query.size(3),
                                           .positions = by_token<int64_t>(positions, batch),
                                           .cos_sin = data<float>(*angles),
                                           .table = cos_sin.size(0),
                                           .query_scale = {},
                                           .backward = backward};
    if (query_scale.has_value()) args.query_scale = by_token<float>(*query_scale, batch);
    C10_CUDA_CHECK(kernels::cuda::rotary_embedding(args, device.stream()));
  });
  return {std::move(rotated_query), std::move(rotated_key)};
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_cuda(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& positions,
    const at::Tensor& cos_sin,
    const std::optional<at::Tensor>& query_scale) {
  return rotate_both(
      "rotary_embedding", query, key, positions, cos_sin, query_scale, /*backward=*/false);
}

std::tuple<at::Tensor, at::Tensor> rotary_embedding_backward_cuda(
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

TORCH_LIBRARY_IMPL(mistral_ext, CUDA, m) {
  m.impl("rotary_embedding", &rotary_embedding_cuda);
  m.impl("rotary_embedding_backward", &rotary_embedding_backward_cuda);
}

}  // namespace mistral_ext::ops
