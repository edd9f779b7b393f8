#include <cmath>

#include "mistral_ext/kernels/cuda/decode_step_token.h"
#include "mistral_ext/kernels/cuda/dependent_launch.cuh"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kEmbeddingThreads = 256;
constexpr int kTokenThreads = 1024;

template <typename T>
__global__ void step_embedding_kernel(const __grid_constant__ StepEmbedding<T> args) {
  let_next_start();
  wait_for_previous();
  const int64_t token = args.tokens[blockIdx.x];
  const bool is_token = token >= 0 && token < args.vocab_size;
  const auto* from = reinterpret_cast<const Vector<T, 8>*>(args.table + token * args.hidden_size);
  auto* to = reinterpret_cast<Vector<T, 8>*>(args.hidden +
                                             static_cast<int64_t>(blockIdx.x) * args.hidden_size);
  Vector<T, 8> nothing;
  for (T& x : nothing.at) x = narrow<T>(NAN);
  for (int i = threadIdx.x; i < args.hidden_size / 8; i += kEmbeddingThreads) {
    to[i] = is_token ? from[i] : nothing;
  }
}

// Greater for a greater logit, and for the first of equal ones.
__device__ uint64_t rank_of(float logit, int64_t index) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // one zero
  uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  if (isnan(logit)) order = 0xffffffffu;
  return static_cast<uint64_t>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

__device__ uint64_t greater(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ uint64_t greatest_of_warp(uint64_t rank) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    rank = greater(rank, __shfl_xor_sync(0xffffffffu, rank, offset));
  }
  return rank;
}

template <typename T>
__device__ uint64_t greatest_of_row(const T* logits, int64_t vocab_size) {
  uint64_t rank = 0;
  const auto* vectors = reinterpret_cast<const uint4*>(logits);
  const bool is_aligned = reinterpret_cast<uintptr_t>(logits) % 16 == 0;
  const int64_t whole = is_aligned ? vocab_size / 8 : 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < whole; i += kTokenThreads) {
    const uint4 bits = __ldcg(vectors + i);
    const auto& x = *reinterpret_cast<const Vector<T, 8>*>(&bits);
    for (int j = 0; j < 8; ++j) rank = greater(rank, rank_of(widen(x.at[j]), i * 8 + j));
  }
  for (int64_t i = whole * 8 + threadIdx.x; i < vocab_size; i += kTokenThreads) {
    const T x = {__ldcg(reinterpret_cast<const unsigned short*>(logits + i))};
    rank = greater(rank, rank_of(widen(x), i));
  }
  return rank;
}

// Once all rows have their tokens: one thread.
template <typename T>
__device__ void count_on(const StepToken<T>& args) {
  bool all_stopped = true;
  for (int i = 0; i < args.batch; ++i) {
    args.positions[i] += 1;
    all_stopped = all_stopped && __ldcg(args.stopped + i) != 0;
  }
  for (int i = 0; i < args.layers; ++i) {
    StepCache& cache = args.caches[i];
    cache.stored = min(cache.stored + 1, cache.capacity);
    cache.seen += 1;
    cache.slot = cache.slot + 1 == cache.capacity ? 0 : cache.slot + 1;
  }
  const int steps = *args.steps + 1;
  *args.steps = steps;
  if (all_stopped || steps >= args.most) *args.running = 0;
}

// A block a row.
template <typename T>
__global__ void __launch_bounds__(kTokenThreads)
    step_token_kernel(const __grid_constant__ StepToken<T> args) {
  __shared__ uint64_t ranks[kTokenThreads / kWarp];
  let_next_start();
  wait_for_previous();
  if (*args.running == 0) return;
  const int row = static_cast<int>(blockIdx.x);
  const uint64_t mine =
      greatest_of_warp(greatest_of_row(args.logits + row * args.vocab_size, args.vocab_size));
  if (threadIdx.x % kWarp == 0) ranks[threadIdx.x / kWarp] = mine;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  const uint64_t rank = greatest_of_warp(ranks[threadIdx.x]);
  if (threadIdx.x != 0) return;
  int64_t token = 0xffffffffu - static_cast<uint32_t>(rank);
  bool stopped = args.stopped[row] != 0;
  if (stopped) token = args.pad_token;
  for (int i = 0; i < args.eos_count; ++i) stopped = stopped || token == args.eos[i];
  args.tokens[row] = token;
  args.made[row * args.most + *args.steps] = token;
  args.stopped[row] = stopped ? 1 : 0;
  __threadfence();
  if (atomicAdd(args.arrived, 1) != static_cast<unsigned>(args.batch) - 1) return;
  __threadfence();
  *args.arrived = 0;
  count_on(args);
}

}  // namespace

template <typename T>
cudaError_t step_embedding(const StepEmbedding<T>& args, const StepLaunch& launch) {
  return launch_step(
      launch, step_embedding_kernel<T>, blocks_for(args.batch), kEmbeddingThreads, 0, args);
}

template <typename T>
cudaError_t step_token(const StepToken<T>& args, const StepLaunch& launch) {
  return launch_step(launch, step_token_kernel<T>, blocks_for(args.batch), kTokenThreads, 0, args);
}

template cudaError_t step_embedding(const StepEmbedding<bfloat16>&, const StepLaunch&);
template cudaError_t step_embedding(const StepEmbedding<float16>&, const StepLaunch&);
template cudaError_t step_token(const StepToken<bfloat16>&, const StepLaunch&);
template cudaError_t step_token(const StepToken<float16>&, const StepLaunch&);

}  // namespace mistral_ext::kernels::cuda
