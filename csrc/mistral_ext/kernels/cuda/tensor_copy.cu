#include <cudaTypedefs.h>

#include "mistral_ext/kernels/cuda/tensor_copy.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

// The driver's function, which no library is linked for.
PFN_cuTensorMapEncodeTiled_v12000 encode_tiled() {
  constexpr unsigned kCudaVersion = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const auto error = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &function, kCudaVersion, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

cudaError_t describe_tensor(const TensorShape& shape, int box_rows, CUtensorMap* map) {
  static const auto encode = encode_tiled();
  if (encode == nullptr) return cudaErrorNotSupported;
  constexpr cuuint64_t kElementBytes = 2;
  constexpr cuuint64_t kUnit = 16;
  const auto size = [](int64_t x) { return static_cast<cuuint64_t>(x); };
  // The step along a dimension of size 1 is never taken, and may be anything.
  const auto step = [&](int64_t along, int64_t stride) {
    return along == 1 ? kUnit : size(stride) * kElementBytes;
  };
  const cuuint64_t sizes[] = {
      size(shape.columns), size(shape.rows), size(shape.heads), size(shape.outer)};
  const cuuint64_t steps[] = {step(shape.rows, shape.row_stride),
                              step(shape.heads, shape.head_stride),
                              step(shape.outer, shape.outer_stride)};
  const cuuint32_t box[] = {kAtomColumns, static_cast<cuuint32_t>(box_rows), 1, 1};
  const cuuint32_t every[] = {1, 1, 1, 1};
  const auto result = encode(map,
                             CU_TENSOR_MAP_DATA_TYPE_UINT16,
                             /*tensorRank=*/4,
                             const_cast<void*>(shape.data),
                             sizes,
                             steps,
                             box,
                             every,
                             CU_TENSOR_MAP_INTERLEAVE_NONE,
                             CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace mistral_ext::kernels::cuda
