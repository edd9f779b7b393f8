#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

// A layer's cache as the device sees it: keys and values [batch, kv_heads, capacity, head_dim], the
// elements of a row side by side, strides in elements. Between two tokens only slot, stored and
// seen change.
struct StepCache {
  void* key;
  void* value;
  int64_t batch_stride, head_stride;
  int slot;    // the new token's
  int stored;  // slots that hold tokens, from the first on
  int capacity;
  int seen;  // tokens before the new one, overwritten ones included

  bool operator==(const StepCache&) const = default;
};

// Attention of a decode step, from the projections of its new tokens: rotates query and key,
// appends key and value to the cache, attends to all of it but what the new token replaces.
template <typename T>
struct DecodeStepAttention {
  const T* query;  // [batch, heads * head_dim]
  const T* key;    // [batch, kv_heads * head_dim]
  const T* value;
  const int64_t* positions;  // [batch]: rows of the table; outside of it: the row becomes NaN
  const float* cos_sin;      // [table, head_dim]: cosines, then sines
  int64_t table;
  const StepCache* cache;  // on the device
  const int* running;      // on the device; 0: nothing is appended
  const int* padding;      // [batch]: tokens of a row, from the first on, that are hidden; or null
  T* output;               // [batch, heads * head_dim]
  float* partial;          // decode_step_scratch() floats
  unsigned* arrived;       // decode_step_groups() counters, 0 before and after
  int batch, heads, kv_heads, head_dim;
  int splits;
  float scale;
};

// Rows of head_dim elements that the kernel takes.
inline constexpr int kStepHeadDimUnit = 16;
inline constexpr int kStepMostHeadDim = 256;

// How many parts the keys are split in.
int decode_step_splits(int batch, int heads, int kv_heads, int multiprocessors);
int64_t decode_step_groups(int batch, int heads, int kv_heads);
int64_t decode_step_scratch(int batch, int heads, int head_dim, int splits);

// T is bfloat16 or float16. Launched dependently, it reads `cache`, `positions`, `padding` and the
// keys and values of earlier tokens before the kernel ahead has ended. Returns what the launch
// returned.
template <typename T>
cudaError_t decode_step_attention(const DecodeStepAttention<T>& args, const StepLaunch& launch);

}  // namespace mistral_ext::kernels::cuda
