#include <cmath>

#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/rotary_embedding.h"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kMostThreads = 256;

template <typename T>
__device__ T at(const ByToken<T>& table, int64_t b, int64_t s) {
  return table.data[b * table.batch_stride + s * table.seq_stride];
}

// A block a token; a thread rotates kWidth pairs at a time, the first half's with the second's.
template <typename T, int kWidth>
__global__ void rotary_embedding_kernel(const RotaryEmbedding<T> args) {
  using A = Accumulator<T>;
  using V = Vector<T, kWidth>;
  const int64_t half = args.head_dim / 2;
  const int pairs = static_cast<int>(half / kWidth);  // vectors of pairs in a head
  const int vectors = static_cast<int>(args.query.heads + args.key.heads) * pairs;
  for (int64_t token = blockIdx.x; token < args.batch * args.seq; token += gridDim.x) {
    const int64_t b = token / args.seq;
    const int64_t s = token % args.seq;
    const int64_t position = at(args.positions, b, s);
    const bool in_table = position >= 0 && position < args.table;
    const float* cosines = args.cos_sin + position * args.head_dim;  // read where in_table
    const A query_scale =
        args.query_scale.data == nullptr ? A(1) : static_cast<A>(at(args.query_scale, b, s));
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
      const int64_t any_head = i / pairs;
      const int64_t pair = i % pairs * kWidth;
      const bool is_query = any_head < args.query.heads;
      const auto& heads = is_query ? args.query : args.key;
      const int64_t head = is_query ? any_head : any_head - args.query.heads;
      const A scale = is_query ? query_scale : A(1);
      const T* x =
          heads.x + b * heads.batch_stride + s * heads.seq_stride + head * heads.head_stride + pair;
      T* y = heads.y + (token * heads.heads + head) * args.head_dim + pair;
      const V low = *reinterpret_cast<const V*>(x);
      const V high = *reinterpret_cast<const V*>(x + half);
      V to_low;
      V to_high;
      for (int j = 0; j < kWidth; ++j) {
        const A cos = in_table ? static_cast<A>(cosines[pair + j]) : A(NAN);
        const A forward_sin = in_table ? static_cast<A>(cosines[half + pair + j]) : A(NAN);
        const A sin = args.backward ? -forward_sin : forward_sin;
        const A a = widen(low.at[j]);
        const A b = widen(high.at[j]);
        to_low.at[j] = narrow<T>((a * cos - b * sin) * scale);
        to_high.at[j] = narrow<T>((b * cos + a * sin) * scale);
      }
      *reinterpret_cast<V*>(y) = to_low;
      *reinterpret_cast<V*>(y + half) = to_high;
    }
  }
}

template <typename T>
bool heads_aligned(const HeadsToRotate<T>& heads, int64_t half) {
  return is_aligned(heads.x, half, heads.batch_stride, heads.seq_stride, heads.head_stride) &&
         is_aligned(heads.y, half);
}

template <typename T, int kWidth>
void launch(const RotaryEmbedding<T>& args, cudaStream_t stream) {
  const int64_t vectors = (args.query.heads + args.key.heads) * (args.head_dim / 2 / kWidth);
  rotary_embedding_kernel<T, kWidth>
      <<<blocks_for(args.batch * args.seq), threads_for(vectors, kMostThreads), 0, stream>>>(args);
}

}  // namespace

template <typename T>
cudaError_t rotary_embedding(const RotaryEmbedding<T>& args, cudaStream_t stream) {
  const int64_t half = args.head_dim / 2;
  if (args.batch * args.seq * half * (args.query.heads + args.key.heads) == 0) return cudaSuccess;
  if (heads_aligned(args.query, half) && heads_aligned(args.key, half)) {
    launch<T, kFullWidth<T>>(args, stream);
  } else {
    launch<T, 1>(args, stream);
  }
  return cudaGetLastError();
}

#define MISTRAL_EXT_INSTANTIATE(T) \
  template cudaError_t rotary_embedding(const RotaryEmbedding<T>&, cudaStream_t);
MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(double)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)

}  // namespace mistral_ext::kernels::cuda
