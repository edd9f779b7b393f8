#pragma once

#include <cuda_runtime_api.h>

#include "mistral_ext/kernels/cuda/linear_few_rows.h"
#include "mistral_ext/kernels/cuda/step_launch.h"

namespace mistral_ext::kernels::cuda {

inline constexpr int kSmallBatch = 32;

// Whether linear_small_batch, not linear_few_rows, is the one to take so many rows.
bool is_small_batch(int64_t rows, const StepLaunch& launch);

// The products of linear_few_rows for up to kSmallBatch rows, on GPUs with bulk copies: every
// weight is multiplied by 16 rows at once on the matrix units. The order of the sums depends on
// in_features and on whether there are up to 8, up to 16 or more rows. Returns what the launch
// returned; cudaErrorInvalidValue where in_features is greater than kFewRowsMostFeatures.
template <typename T>
cudaError_t linear_small_batch(const LinearFewRows<T>& args, const StepLaunch& launch);

}  // namespace mistral_ext::kernels::cuda
