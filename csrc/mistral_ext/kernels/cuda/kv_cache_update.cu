#include "mistral_ext/kernels/cuda/kv_cache_update.h"
#include "mistral_ext/kernels/cuda/launch.h"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kMostThreads = 256;

// A block a token, its threads over the rows of all heads, keys and values. Unit: what one load
// moves.
template <typename Unit>
__global__ void kv_cache_update_kernel(const KVCacheUpdate args) {
  const int64_t units = args.row_bytes / static_cast<int64_t>(sizeof(Unit));
  const int64_t count = 2 * args.kv_heads * units;
  for (int64_t i = blockIdx.x; i < args.batch * args.length; i += gridDim.x) {
    const int64_t batch = i / args.length;
    const int64_t token = i % args.length;
    const int64_t slot = (args.start + token) % args.capacity;
    for (int64_t j = threadIdx.x; j < count; j += blockDim.x) {
      const int64_t row = j / units;
      const int64_t unit = j % units;
      const CacheWrite& write = row < args.kv_heads ? args.key : args.value;
      const int64_t head = row < args.kv_heads ? row : row - args.kv_heads;
      const char* from = write.tokens + batch * write.token_batch_stride +
                         token * write.token_stride + head * write.token_head_stride;
      char* to = write.cache + batch * write.cache_batch_stride + head * write.cache_head_stride +
                 slot * write.cache_slot_stride;
      reinterpret_cast<Unit*>(to)[unit] = reinterpret_cast<const Unit*>(from)[unit];
    }
  }
}

// Every address and step, or'ed: its low zero bits are what all are multiples of.
uint64_t alignment_bits(const CacheWrite& write) {
  const auto bits = [](auto... values) { return (... | static_cast<uint64_t>(values)); };
  return bits(reinterpret_cast<uintptr_t>(write.cache),
              reinterpret_cast<uintptr_t>(write.tokens),
              write.cache_batch_stride,
              write.cache_head_stride,
              write.cache_slot_stride,
              write.token_batch_stride,
              write.token_stride,
              write.token_head_stride);
}

template <typename Unit>
void launch(const KVCacheUpdate& args, cudaStream_t stream) {
  const int64_t count = 2 * args.kv_heads * args.row_bytes / static_cast<int64_t>(sizeof(Unit));
  kv_cache_update_kernel<Unit>
      <<<blocks_for(args.batch * args.length), threads_for(count, kMostThreads), 0, stream>>>(args);
}

}  // namespace

cudaError_t kv_cache_update(const KVCacheUpdate& args, cudaStream_t stream) {
  if (args.batch * args.length * args.kv_heads * args.row_bytes == 0) return cudaSuccess;
  const uint64_t bits =
      alignment_bits(args.key) | alignment_bits(args.value) | static_cast<uint64_t>(args.row_bytes);
  if (bits % 16 == 0) {
    launch<uint4>(args, stream);
  } else if (bits % 4 == 0) {
    launch<uint32_t>(args, stream);
  } else {
    launch<uint16_t>(args, stream);  // no element is smaller
  }
  return cudaGetLastError();
}

}  // namespace mistral_ext::kernels::cuda
