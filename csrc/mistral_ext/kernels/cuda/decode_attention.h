#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mistral_ext::kernels::cuda {

// Attention of one query a sequence over its cache: each byte of keys and values is read once. The
// keys are split over blocks, whose partial results a second kernel joins.
template <typename T>
struct DecodeAttention {
  const T* query;  // [batch, heads, head_dim]
  int64_t query_batch_stride, query_head_stride;
  const T* key;  // [batch, kv_heads, keys, head_dim], the elements of a row side by side
  int64_t key_batch_stride, key_head_stride, key_stride;
  const T* value;
  int64_t value_batch_stride, value_head_stride, value_stride;
  const uint8_t* mask;  // [batch, keys], nonzero is visible; null: all are
  int64_t mask_batch_stride, mask_stride;
  T* output;         // [batch, heads, head_dim]
  float* logsumexp;  // [batch, heads]
  float* partial;    // decode_attention_scratch() floats
  int64_t batch, heads, kv_heads, head_dim;
  int64_t first, last;  // the keys to look at
  int splits;           // of those keys
  float scale;
};

// The rows a kernel takes: their length, and multiples of it as strides (in elements).
inline constexpr int64_t kDecodeHeadDimUnit = 8;
inline constexpr int64_t kDecodeMostHeadDim = 256;

// How many parts the keys are split in: as many as fill the device, none shorter than pays.
int decode_attention_splits(int64_t batch, int64_t heads, int64_t kv_heads, int64_t keys, int sms);

// Floats that `partial` has room for.
inline int64_t decode_attention_scratch(int64_t batch,
                                        int64_t heads,
                                        int64_t head_dim,
                                        int splits) {
  return batch * heads * splits * (head_dim + 2);
}

// T is float, bfloat16 or float16; pointers and strides are multiples of 16 bytes. Returns what the
// launches returned.
template <typename T>
cudaError_t decode_attention(const DecodeAttention<T>& args, cudaStream_t stream);

}  // namespace mistral_ext::kernels::cuda
