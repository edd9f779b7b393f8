#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

// The ends of a decode step: a token becomes a row of the embedding, logits become a token.

template <typename T>
struct StepEmbedding {
  const int64_t* tokens;  // [batch]
  const T* table;         // [vocab_size, hidden_size], beginning on 16 bytes
  T* hidden;              // [batch, hidden_size]
  int64_t vocab_size;     // a token outside of it: a row of NaN
  int hidden_size;        // a multiple of 8
  int batch;
};

// T is bfloat16 or float16. Returns what the launch returned.
template <typename T>
cudaError_t step_embedding(const StepEmbedding<T>& args, const StepLaunch& launch);

template <typename T>
struct StepToken {
  const T* logits;     // [batch, vocab_size]
  int64_t* tokens;     // [batch]: the likeliest, of equals the first; NaN counts as greatest
  int64_t* positions;  // [batch], counted on
  int64_t* made;       // [batch, most]: tokens so far
  int64_t most;
  int* steps;          // columns of `made` that are filled; at `most` nothing more happens
  uint8_t* stopped;    // [batch]: those get pad_token from then on
  const int64_t* eos;  // a row stops at any of them
  int eos_count;
  int64_t pad_token;
  int* running;  // 0 once every row has stopped or `made` is full: the step then changes nothing
  StepCache* caches;  // [layers]: slots counted on
  unsigned* arrived;  // a counter, 0 before and after
  int64_t vocab_size;
  int batch, layers;
};

// Everything on the device. T is bfloat16 or float16. Returns what the launch returned.
template <typename T>
cudaError_t step_token(const StepToken<T>& args, const StepLaunch& launch);

}  // namespace mistral_ext::kernels::cuda
