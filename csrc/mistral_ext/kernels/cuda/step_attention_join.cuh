#pragma once

// The end of attention in a decode step: the warps of a block, then the splits of the keys.

#include "mistral_ext/kernels/cuda/cluster.cuh"
#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/step_softmax.cuh"

namespace mistral_ext::kernels::cuda {

// What the splits of a cluster tell each other: each joins its share of the pairs of columns of all
// heads, of which there are up to kPairs.
template <int kPairs>
struct SplitExchange {
  CopyBarrier received;
  // [splits][pairs / splits]: greatest score, sum of weights, two weighted values
  float4 stats[kPairs];
};

// Of query heads first_head to first_head + group_size of row blockIdx.z, each warp has written to
// shared memory, for every one of kGroup heads, kWidth columns of weighted values, its greatest
// score and its sum of weights. Grid: blocks of heads, splits, rows, of whose splits the first
// `splits` are there. The block that ends last joins them. With kCluster the splits are a cluster
// of blocks, which tell each other what they have.
template <typename T, int kWarps, int kGroup, int kWidth, bool kCluster = false>
__device__ void join_warps(const DecodeStepAttention<T>& args,
                           int splits,
                           const float* joined,
                           const float* greatest,
                           const float* sums,
                           int first_head,
                           int group_size,
                           SplitExchange<kGroup * kWidth / 2>* exchange = nullptr) {
  constexpr int kThreads = kWarps * kWarp;
  __shared__ bool is_last;
  const int head_dim = args.head_dim;
  const int split = blockIdx.y;
  const int batch = blockIdx.z;
  __syncthreads();
  const int64_t block_head = static_cast<int64_t>(batch) * args.heads + first_head;
  const auto partial = [&](int g, int s) {
    return reinterpret_cast<float2*>(args.partial +
                                     ((block_head + g) * args.splits + s) * (head_dim + 2));
  };
  const int pairs = head_dim / 2;  // of columns, one a thread
  [[maybe_unused]] const int share = group_size * pairs / splits;
  const auto store = [&](int g, int pair, float2 total, float sum) {
    T* to = args.output + (block_head + g) * head_dim + 2 * pair;
    to[0] = narrow<T>(total.x / sum);
    to[1] = narrow<T>(total.y / sum);
  };
  for (int i = threadIdx.x; i < group_size * pairs; i += kThreads) {
    const int g = i / pairs;
    const int pair = i - g * pairs;
    float most = -INFINITY;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, greatest[w * kGroup + g]);
    float sum = 0.0f;
    float2 total = {};
    for (int w = 0; w < kWarps; ++w) {
      const float weight = rescale(greatest[w * kGroup + g], most);
      const float2 x = reinterpret_cast<const float2*>(joined + (w * kGroup + g) * kWidth)[pair];
      sum += weight * sums[w * kGroup + g];
      total.x += weight * x.x;
      total.y += weight * x.y;
    }
    if (splits == 1) {
      store(g, pair, total, sum);
      continue;
    }
#if __CUDA_ARCH__ >= 900
    if constexpr (kCluster) {
      const int owner = i % splits;
      store_there(address_in(exchange->stats + split * share + i / splits, owner),
                  make_float4(most, sum, total.x, total.y),
                  address_in(&exchange->received, owner));
      continue;
    }
#endif
    __stcg(partial(g, split) + 1 + pair, total);
    if (pair == 0) __stcg(partial(g, split), make_float2(most, sum));
  }
  if (splits == 1) return;
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster) {
    exchange->received.wait(0);
    for (int i = split + splits * threadIdx.x; i < group_size * pairs; i += splits * kThreads) {
      const float4* stats = exchange->stats + i / splits;
      float most = -INFINITY;
      for (int j = 0; j < splits; ++j) most = fmaxf(most, stats[j * share].x);
      float sum = 0.0f;
      float2 total = {};
      for (int j = 0; j < splits; ++j) {
        const float4 x = stats[j * share];
        const float weight = rescale(x.x, most);
        sum += weight * x.y;
        total.x += weight * x.z;
        total.y += weight * x.w;
      }
      store(i / pairs, i % pairs, total, sum);
    }
    return;
  }
#endif

  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned* arrived = args.arrived + batch * gridDim.x + blockIdx.x;
    __threadfence();  // after the barrier: for all of the block
    is_last = atomicAdd(arrived, 1) == static_cast<unsigned>(splits) - 1;
    __threadfence();
    if (is_last) *arrived = 0;
  }
  __syncthreads();
  if (!is_last) return;
  constexpr int kSplitsAhead = 16;
  for (int i = threadIdx.x; i < group_size * pairs; i += kThreads) {
    const int g = i / pairs;
    const int pair = i - g * pairs;
    float most = -INFINITY;
    float sum = 0.0f;
    float2 total = {};
    for (int first = 0; first < splits; first += kSplitsAhead) {
      float2 stats[kSplitsAhead];
      float2 x[kSplitsAhead];
#pragma unroll
      for (int j = 0; j < kSplitsAhead; ++j) {
        const bool is_there = first + j < splits;
        stats[j] = is_there ? __ldcg(partial(g, first + j)) : make_float2(-INFINITY, 0.0f);
        x[j] = is_there ? __ldcg(partial(g, first + j) + 1 + pair) : float2{};
      }
      float now = most;
#pragma unroll
      for (int j = 0; j < kSplitsAhead; ++j) now = fmaxf(now, stats[j].x);
      const float before = rescale(most, now);
      most = now;
      sum *= before;
      total.x *= before;
      total.y *= before;
#pragma unroll
      for (int j = 0; j < kSplitsAhead; ++j) {
        const float weight = rescale(stats[j].x, most);
        sum += weight * stats[j].y;
        total.x += weight * x[j].x;
        total.y += weight * x[j].y;
      }
    }
    store(g, pair, total, sum);
  }
}

}  // namespace mistral_ext::kernels::cuda
