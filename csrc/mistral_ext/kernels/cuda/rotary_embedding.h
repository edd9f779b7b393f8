#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mistral_ext::kernels::cuda {

// A [batch, seq] table read by token; the batch stride is 0 where all sequences share a row.
template <typename T>
struct ByToken {
  const T* data;
  int64_t batch_stride;
  int64_t seq_stride;
};

// T is float, double, bfloat16 or float16; arithmetic is in float (double for double).
template <typename T>
struct HeadsToRotate {
  const T* x;  // [batch, seq, heads, head_dim], the elements of a head side by side
  int64_t batch_stride;
  int64_t seq_stride;
  int64_t head_stride;
  T* y;  // [batch, seq, heads, head_dim]
  int64_t heads;
};

template <typename T>
struct RotaryEmbedding {
  HeadsToRotate<T> query;
  HeadsToRotate<T> key;
  int64_t batch;
  int64_t seq;
  int64_t head_dim;
  ByToken<int64_t> positions;  // rows of the table; outside of it: the token becomes NaN
  const float* cos_sin;        // [table, head_dim]: cosines, then sines
  int64_t table;
  ByToken<float> query_scale;  // data null: none
  bool backward;               // rotates back: the transpose
};

// Rotates query and key. Returns what the launch returned.
template <typename T>
cudaError_t rotary_embedding(const RotaryEmbedding<T>& args, cudaStream_t stream);

}  // namespace mistral_ext::kernels::cuda
