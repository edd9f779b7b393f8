#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mistral_ext::kernels::cuda {

inline constexpr int kFlashKeys = 128;  // keys of a tile

// Attention of many queries by tiles of keys with the online softmax (Dao et al. 2022,
// "FlashAttention"; for Hopper: Shah et al. 2024, "FlashAttention-3", arXiv 2407.08608). What is
// visible is said in ops/attention.h. Tiles without a visible key are passed over.
template <typename T>
struct FlashAttention {
  const T* query;  // [batch, query_len, heads, head_dim], the elements of a row side by side
  int64_t query_batch_stride, query_stride, query_head_stride;
  const T* key;  // [batch, key_len, kv_heads, head_dim], the same
  int64_t key_batch_stride, key_stride, key_head_stride;
  const T* value;
  int64_t value_batch_stride, value_stride, value_head_stride;
  T* output;         // [batch, query_len, heads, head_dim]
  float* logsumexp;  // [batch, heads, query_len]
  int batch, heads, kv_heads, head_dim, query_len, key_len;
  bool is_causal;
  int sliding_window;  // 0: all
  float scale;         // positive
  int multiprocessors;
  // What plan_visible_keys has written, or null.
  const uint32_t* visible;
  int64_t visible_batch_stride;
  // [batch or 1, key_len] and the least and greatest of each tile, [batch or 1, tiles, 2]; or null.
  const int64_t* sequence_ids;
  int64_t sequence_ids_batch_stride;
  const int64_t* sequence_ranges;
  int64_t sequence_ranges_batch_stride;
};

// Whether flash_attention runs on a device of this compute capability with this head_dim.
bool flash_attention_serves(int major, int64_t head_dim);

// T is bfloat16 or float16; pointers and strides are multiples of 16 bytes. Returns what the launch
// returned.
template <typename T>
cudaError_t flash_attention(const FlashAttention<T>& args, cudaStream_t stream);

inline int64_t flash_tiles(int64_t key_len) { return (key_len + kFlashKeys - 1) / kFlashKeys; }

// 32-bit words of a row of `visible`.
inline int64_t visible_words(int64_t key_len) { return flash_tiles(key_len) * (kFlashKeys / 32); }

// A bit a key of mask [rows, key_len], whose bytes are not 0 where a key is visible: visible
// [rows, visible_words], of each word the lowest bit first.
cudaError_t plan_visible_keys(const uint8_t* mask,
                              int64_t row_stride,
                              int64_t stride,
                              int rows,
                              int key_len,
                              uint32_t* visible,
                              cudaStream_t stream);

// ranges [rows, flash_tiles, 2] of ids [rows, key_len].
cudaError_t plan_sequence_ranges(
    const int64_t* ids, int rows, int key_len, int64_t* ranges, cudaStream_t stream);

}  // namespace mistral_ext::kernels::cuda
