#include <cmath>

#include "mistral_ext/kernels/cuda/decode_step_attention.h"
#include "mistral_ext/kernels/cuda/dependent_launch.cuh"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/step_attention_join.cuh"
#include "mistral_ext/kernels/cuda/step_attention_tiles.h"
#include "mistral_ext/kernels/cuda/step_softmax.cuh"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kMostGroup = 8;
constexpr int kMostSplits = 64;

// A block: one key/value head of one sequence, up to kGroup of the query heads that read it, one
// split of the keys. kLanes threads hold a row, so a warp sees 32 / kLanes rows at a time. The
// block that ends last joins the splits.
template <typename T, int kLanes, int kGroup>
__global__ void __launch_bounds__(kThreads, 1)
    step_attention_kernel(const __grid_constant__ DecodeStepAttention<T> args) {
  constexpr int kRows = kWarp / kLanes;  // of a warp
  constexpr int kBlockRows = kWarps * kRows;
  constexpr int kWidth = kLanes * kRowElements;    // head_dim, rounded up
  extern __shared__ __align__(16) float joined[];  // [kWarps][kGroup][kWidth]
  __shared__ float greatest[kWarps][kGroup];
  __shared__ float sums[kWarps][kGroup];
  let_next_start();

  const int head_dim = args.head_dim;
  const int group = args.heads / args.kv_heads;
  const int group_blocks = (group + kGroup - 1) / kGroup;
  const int kv_head = blockIdx.x / group_blocks;
  const int first_head = kv_head * group + blockIdx.x % group_blocks * kGroup;
  const int group_size = min(kGroup, (kv_head + 1) * group - first_head);
  const int split = blockIdx.y;
  const int batch = blockIdx.z;
  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes;
  // Rows of a warp may end at different keys: a sum is over the threads of one row.
  const uint32_t row_lanes = kLanes == 32 ? 0xffffffffu
                                          : ((1u << kLanes % 32) - 1)
                                                << (threadIdx.x % 32 / kLanes * kLanes);
  const int64_t column = lane * kRowElements;
  const bool holds = column < head_dim;

  const StepCache cache = *args.cache;
  const int64_t offset = batch * cache.batch_stride + kv_head * cache.head_stride + column;
  T* const keys = static_cast<T*>(cache.key) + offset;
  T* const values = static_cast<T*>(cache.value) + offset;
  // Slots behind the new token's hold older tokens, of the ring's round before.
  const int hidden =
      args.padding == nullptr ? -cache.capacity : args.padding[batch] - (cache.seen - cache.slot);
  const int first = cache.slot == cache.stored ? min(max(hidden, 0), cache.stored) : 0;
  const auto bound = [&](int i) {
    return first + static_cast<int>(static_cast<int64_t>(cache.stored - first) * i / args.splits);
  };
  const int begin = bound(split);
  const int end = bound(split + 1);
  const auto load_ahead = [&](int from) {
    KeysAhead<T> ahead = {};
#pragma unroll
    for (int a = 0; a < kKeysAhead; ++a) {
      const int at = from + a * kBlockRows;
      ahead.visible[a] = at < end && at != cache.slot &&
                         at >= (at < cache.slot ? hidden : hidden + cache.capacity);
      if (ahead.visible[a] && holds) {
        ahead.key[a] = load_piece(keys + static_cast<int64_t>(at) * head_dim);
        ahead.value[a] = load_piece(values + static_cast<int64_t>(at) * head_dim);
      }
    }
    return ahead;
  };
  KeysAhead<T> ahead = load_ahead(begin + row);
  const Rotation<T> rotate(args, args.positions[batch], holds ? column : 0);
  const bool appends = *args.running != 0 && first_head == kv_head * group;

  wait_for_previous();
  // All that comes from the kernel ahead is asked for before any of it is used. Heads beyond the
  // group's last one are that one again.
  const bool has_new = split == args.splits - 1 && row == 0;
  typename Rotation<T>::Loaded loaded[kGroup + 1];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    const int head = first_head + min(g, group_size - 1);
    loaded[g] =
        rotate.load_head(args.query + (static_cast<int64_t>(batch) * args.heads + head) * head_dim);
  }
  KeysAhead<T> fresh = {};
  const int64_t new_row = (static_cast<int64_t>(batch) * args.kv_heads + kv_head) * head_dim;
  if (has_new) {
    loaded[kGroup] = rotate.load_head(args.key + new_row);
    fresh.value[0] = load_projected(args.value + new_row + rotate.column);
    fresh.visible[0] = true;
  }
  float query[kGroup][kRowElements];
  SoftmaxState state[kGroup];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    const auto piece = rotate(loaded[g]);
    const float scale = holds ? args.scale * kLog2e : 0.0f;
    for (int j = 0; j < kRowElements; ++j) query[g][j] = widen(piece.at[j]) * scale;
  }
  if (has_new) {
    fresh.key[0] = rotate(loaded[kGroup]);
    if (appends && holds) {
      const int64_t to = static_cast<int64_t>(cache.slot) * head_dim;
      *reinterpret_cast<RowPiece<T>*>(keys + to) = fresh.key[0];
      *reinterpret_cast<RowPiece<T>*>(values + to) = fresh.value[0];
    }
    attend<T, kLanes, kGroup>(fresh, query, row_lanes, state);
  }
  for (int from = begin + row; from < end; from += kKeysAhead * kBlockRows) {
    KeysAhead<T> next = {};
    if (from + kKeysAhead * kBlockRows < end) next = load_ahead(from + kKeysAhead * kBlockRows);
    attend<T, kLanes, kGroup>(ahead, query, row_lanes, state);
    ahead = next;
  }

  // The rows of a warp, then the warps.
  __syncwarp();
  const int warp = threadIdx.x / kWarp;
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
#pragma unroll
    for (int step = kLanes; step < kWarp; step *= 2) {
      float other[kRowElements];
      for (int j = 0; j < kRowElements; ++j) {
        other[j] = __shfl_xor_sync(0xffffffffu, state[g].values[j], step);
      }
      const float other_greatest = __shfl_xor_sync(0xffffffffu, state[g].greatest, step);
      const float other_sum = __shfl_xor_sync(0xffffffffu, state[g].sum, step);
      state[g].join(other_greatest, other_sum, other);
    }
    if (threadIdx.x % kWarp < kLanes) {
      auto* to = reinterpret_cast<float4*>(joined + (warp * kGroup + g) * kWidth + column);
      const float* from = state[g].values;
      to[0] = make_float4(from[0], from[1], from[2], from[3]);
      to[1] = make_float4(from[4], from[5], from[6], from[7]);
      if (lane == 0) {
        greatest[warp][g] = state[g].greatest;
        sums[warp][g] = state[g].sum;
      }
    }
  }
  join_warps<T, kWarps, kGroup, kWidth>(
      args, args.splits, joined, &greatest[0][0], &sums[0][0], first_head, group_size);
}

template <typename T, int kLanes, int kGroup>
cudaError_t launch_group(const DecodeStepAttention<T>& args, const StepLaunch& launch) {
  constexpr size_t kShared = sizeof(float) * kWarps * kGroup * kLanes * kRowElements;
  const auto kernel = step_attention_kernel<T, kLanes, kGroup>;
  if constexpr (kShared > 32 * 1024) {
    const auto error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
    if (error != cudaSuccess) return error;
  }
  const int64_t group_blocks = ceil_div(args.heads / args.kv_heads, kGroup);
  const dim3 blocks(blocks_for(args.kv_heads * group_blocks),
                    static_cast<unsigned>(args.splits),
                    static_cast<unsigned>(args.batch));
  return launch_step(launch, kernel, blocks, kThreads, kShared, args);
}

template <typename T, int kLanes>
cudaError_t launch(const DecodeStepAttention<T>& args, const StepLaunch& launch) {
  const int group = args.heads / args.kv_heads;
  if (group == 1) return launch_group<T, kLanes, 1>(args, launch);
  if (group == 2) return launch_group<T, kLanes, 2>(args, launch);
  if (group <= 4) return launch_group<T, kLanes, 4>(args, launch);
  return launch_group<T, kLanes, kMostGroup>(args, launch);
}

}  // namespace

int64_t decode_step_groups(int batch, int heads, int kv_heads) {
  const int group = heads / kv_heads;
  return static_cast<int64_t>(batch) * kv_heads * ceil_div(group, group <= 4 ? 4 : kMostGroup);
}

int decode_step_splits(int batch, int heads, int kv_heads, int multiprocessors) {
  const int64_t groups = decode_step_groups(batch, heads, kv_heads);
  const auto splits =
      static_cast<int>(std::clamp<int64_t>(multiprocessors / groups, 1, kMostSplits));
  return splits == 1 ? 1 : splits / 2 * 2;  // in pairs
}

int64_t decode_step_scratch(int batch, int heads, int head_dim, int splits) {
  return static_cast<int64_t>(batch) * heads * splits * (head_dim + 2);
}

template <typename T>
cudaError_t decode_step_attention(const DecodeStepAttention<T>& args, const StepLaunch& how) {
  if (args.head_dim <= kTileMostHeadDim) return step_attention_tiles(args, how);
  return launch<T, 32>(args, how);
}

template cudaError_t decode_step_attention(const DecodeStepAttention<bfloat16>&, const StepLaunch&);
template cudaError_t decode_step_attention(const DecodeStepAttention<float16>&, const StepLaunch&);

}  // namespace mistral_ext::kernels::cuda
