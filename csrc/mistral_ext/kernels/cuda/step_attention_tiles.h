#pragma once

#include <cuda_runtime_api.h>

#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

// decode_step_attention where there is enough of it: from so many groups of heads on, the
// arithmetic is that of the matrix units, on tiles of keys, with weights rounded to T before they
// meet values.
inline constexpr int64_t kTileGroups = 32;
inline constexpr int kTileMostHeadDim = 128;

int step_attention_tile_splits(int64_t groups, int multiprocessors);

template <typename T>
cudaError_t step_attention_tiles(const DecodeStepAttention<T>& args, const StepLaunch& launch);

}  // namespace mistral_ext::kernels::cuda
