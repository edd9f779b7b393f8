#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/decode_step_token.h"
#include "mistral_ext/kernels/cuda/linear_few_rows.h"
#include "mistral_ext/kernels/cuda/linear_small_batch.h"
#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

// All weights begin on 16 bytes and lie with their rows side by side.
template <typename T>
struct DecodeStepLayer {
  const T* input_layernorm;
  const T* q_proj;
  const T* k_proj;
  const T* v_proj;
  const T* o_proj;
  const T* post_attention_layernorm;
  const T* gate_proj;
  const T* up_proj;
  const T* down_proj;
};

struct DecodeStepSizes {
  int64_t hidden, intermediate;  // multiples of 8
  int64_t vocab;
  int layers, heads, kv_heads, head_dim;
  int batch;  // 1 to most_step_rows()
  float eps;
  float scale;  // of attention scores
};

// What the kernels of a step hand on to each other, [batch, ...] each.
template <typename T>
struct DecodeStepBuffers {
  T* hidden;          // [hidden]: the residual stream
  T* query;           // [heads * head_dim]
  T* key;             // [kv_heads * head_dim]
  T* value;           // the same
  T* attention;       // [heads * head_dim]
  T* activated;       // [intermediate]
  T* logits;          // [vocab]
  float* partial;     // decode_step_scratch() floats
  unsigned* arrived;  // decode_step_groups() counters of attention and one more, all 0
};

// One token of each row through the whole model: tokens in, tokens out, all on the device.
template <typename T>
struct DecodeStep {
  DecodeStepSizes sizes;
  const DecodeStepLayer<T>* layers;  // on the host
  const T* embed_tokens;             // [vocab, hidden]
  const T* norm;
  const T* lm_head;  // [vocab, hidden]
  DecodeStepBuffers<T> buffers;
  const float* cos_sin;  // [table, head_dim]
  int64_t table;
  const int* padding;  // [batch]: as in DecodeStepAttention
  int splits;          // of the keys
  StepToken<T> token;  // logits, caches and sizes are filled in from the others
  StepCache* caches;   // [layers], on the device
};

inline constexpr int kMostStepRows = kSmallBatch;

// How many rows a step takes on this GPU: up to kMostStepRows.
int most_step_rows(const StepLaunch& launch);

// Launches its kernels, 5 a layer. T is bfloat16 or float16. Returns what the first launch that
// failed returned.
template <typename T>
cudaError_t decode_step(const DecodeStep<T>& step, const StepLaunch& launch);

}  // namespace mistral_ext::kernels::cuda
