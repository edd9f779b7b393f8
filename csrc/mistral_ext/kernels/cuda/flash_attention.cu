#include "mistral_ext/kernels/cuda/flash_attention.h"
#include "mistral_ext/kernels/cuda/flash_attention_queries.cuh"
#include "mistral_ext/kernels/cuda/flash_attention_tiles.cuh"
#include "mistral_ext/kernels/cuda/registers.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

template <typename T, int kHeadDim>
__global__ void __launch_bounds__(flash::kThreads, 1)
    flash_attention_kernel(const __grid_constant__ flash::Launch<T> launch) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using S = flash::Shared<kHeadDim>;
  extern __shared__ uint8_t bytes[];
  const uint32_t past = shared_address(bytes) % 1024;
  auto& shared = *reinterpret_cast<S*>(bytes + (1024 - past) % 1024);
  const int group = static_cast<int>(threadIdx.x) / flash::kGroupThreads - 1;
  if (threadIdx.x == 0) {
    constexpr int kReaders = flash::kGroups * flash::kGroupThreads / kWarp;
    for (int stage = 0; stage < flash::kStages; ++stage) {
      shared.query_is_there[stage].init(1);
      shared.key_is_there[stage].init(1);
      shared.value_is_there[stage].init(1);
      shared.query_is_read[stage].init(kReaders);
      shared.key_is_read[stage].init(kReaders);
      shared.value_is_read[stage].init(kReaders);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x < kWarp) flash::copy_tiles<T, kHeadDim>(launch, shared);
  } else {
    take_registers<240>();
    flash::Queries<T, kHeadDim>(launch.args, shared, group).run();
  }
#endif
}

template <typename T, int kHeadDim>
cudaError_t launch(const FlashAttention<T>& args, cudaStream_t stream) {
  flash::Launch<T> work = {.args = args, .query = {}, .key = {}, .value = {}};
  const TensorShape query = {args.query,
                             kHeadDim,
                             args.query_len,
                             args.heads,
                             args.batch,
                             args.query_stride,
                             args.query_head_stride,
                             args.query_batch_stride};
  const TensorShape key = {args.key,
                           kHeadDim,
                           args.key_len,
                           args.kv_heads,
                           args.batch,
                           args.key_stride,
                           args.key_head_stride,
                           args.key_batch_stride};
  const TensorShape value = {args.value,
                             kHeadDim,
                             args.key_len,
                             args.kv_heads,
                             args.batch,
                             args.value_stride,
                             args.value_head_stride,
                             args.value_batch_stride};
  auto error = describe_tensor(query, flash::kQueries, &work.query);
  if (error == cudaSuccess) error = describe_tensor(key, kFlashKeys, &work.key);
  if (error == cudaSuccess) error = describe_tensor(value, kFlashKeys, &work.value);
  constexpr int kShared = sizeof(flash::Shared<kHeadDim>) + 1024;
  const auto kernel = flash_attention_kernel<T, kHeadDim>;
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  }
  if (error != cudaSuccess) return error;
  const int64_t tiles = ceil_div(args.query_len, flash::kQueries) * args.heads * args.batch;
  if (tiles >= kMostBlocks) return cudaErrorInvalidValue;
  const int64_t blocks = std::min<int64_t>(tiles, args.multiprocessors);
  kernel<<<static_cast<unsigned>(blocks), flash::kThreads, kShared, stream>>>(work);
  return cudaGetLastError();
}

}  // namespace

bool flash_attention_serves(int major, int64_t head_dim) {
#if defined(MISTRAL_EXT_HAS_SM90A)
  return major == 9 && (head_dim == 64 || head_dim == 128);
#else
  static_cast<void>(major);
  static_cast<void>(head_dim);
  return false;
#endif
}

template <typename T>
cudaError_t flash_attention(const FlashAttention<T>& args, cudaStream_t stream) {
  if (args.batch == 0 || args.heads == 0 || args.query_len == 0) return cudaSuccess;
  return args.head_dim == 64 ? launch<T, 64>(args, stream) : launch<T, 128>(args, stream);
}

template cudaError_t flash_attention(const FlashAttention<bfloat16>&, cudaStream_t);
template cudaError_t flash_attention(const FlashAttention<float16>&, cudaStream_t);

}  // namespace mistral_ext::kernels::cuda
