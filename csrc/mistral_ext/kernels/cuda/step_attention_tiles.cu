#include <cmath>

#include "mistral_ext/kernels/cuda/dependent_launch.cuh"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/step_attention_join.cuh"
#include "mistral_ext/kernels/cuda/step_attention_tile.cuh"
#include "mistral_ext/kernels/cuda/step_attention_tiles.h"
#include "mistral_ext/kernels/cuda/step_softmax.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kGroup = 8;  // query heads of a block, at most
// Splits that are a cluster of blocks tell each other soonest what they have; larger clusters take
// longer to start than they save. Up to kFewKeys keys are so looked at, by two splits of all.
constexpr int kClusterSplits = 2;
constexpr int kFewKeys = 768;

// A block: one key/value head of one sequence, up to kGroup of the query heads that read it, one
// split of the keys. head_dim is at most kDims. With kCluster pairs of splits are clusters.
template <typename T, int kDims, int kWarps, bool kCluster>
__global__ void __launch_bounds__(kWarps* kWarp, 8 / kWarps)
    tiles_kernel(const __grid_constant__ DecodeStepAttention<T> args) {
  using Keys = Tile<T, kDims>;
  __shared__ __align__(16) T query[kGroup + 1][kDims];  // rotated; then the new key
  __shared__ __align__(16) T new_value[kDims];
  extern __shared__ __align__(16) float joined[];  // [kWarps][kGroup][kDims]
  __shared__ float greatest[kWarps * kGroup];
  __shared__ float sums[kWarps * kGroup];
  __shared__ SplitExchange<kGroup * kDims / 2> exchange;
  let_next_start();

  const int head_dim = args.head_dim;
  const int group = args.heads / args.kv_heads;
  const int group_blocks = (group + kGroup - 1) / kGroup;
  const int kv_head = blockIdx.x / group_blocks;
  const int first_head = kv_head * group + blockIdx.x % group_blocks * kGroup;
  const int group_size = min(kGroup, (kv_head + 1) * group - first_head);
  const int split = blockIdx.y;
  const int batch = blockIdx.z;
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int g = lane / 4;
  const int t = lane % 4;

  const StepCache cache = *args.cache;
  const int64_t offset = batch * cache.batch_stride + kv_head * cache.head_stride;
  T* const keys = static_cast<T*>(cache.key) + offset;
  T* const values = static_cast<T*>(cache.value) + offset;
  // Slots behind the new token's hold older tokens, of the ring's round before.
  const int hidden =
      args.padding == nullptr ? -cache.capacity : args.padding[batch] - (cache.seen - cache.slot);
  const int lowest = cache.slot == cache.stored ? min(max(hidden, 0), cache.stored) : 0;
  const int seen = cache.stored - lowest;
  const int splits = seen > kFewKeys ? args.splits : min(args.splits, kClusterSplits);
  if (split >= splits) return;
  const auto bound = [&](int i) {
    return lowest + static_cast<int>(static_cast<int64_t>(seen) * i / splits);
  };
  const int begin = bound(split);
  const int end = bound(split + 1);
#if __CUDA_ARCH__ >= 900
  const bool is_cluster = kCluster && splits == kClusterSplits;
  if (is_cluster) {
    if (threadIdx.x == 0) {
      exchange.received.init(1);
      fence_barrier_init();
      exchange.received.arrive_and_expect(group_size * head_dim / 2 *
                                          static_cast<int>(sizeof(float4)));
    }
    arrive_at_cluster();
  }
#endif
  // Tiles take turns: while one is looked at, the other is on its way.
  constexpr int kStep = kWarps * kTileKeys;
  const int first = begin + warp * kTileKeys;
  const Place place = {first, end, cache.slot, hidden, hidden + cache.capacity};
  Place places[2] = {place, place};
  places[1].first += kStep;
  Keys tiles[2] = {Keys(lane, head_dim), Keys(lane, head_dim)};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    tiles[i].load_keys(keys, places[i]);
    tiles[i].load_values(values, places[i]);
  }

  // Threads take the halves of heads, 8 elements of each, then the new key, then its value.
  const int half_pieces = head_dim / (2 * kRowElements);
  const bool has_new = split == splits - 1;
  const int head = static_cast<int>(threadIdx.x) / half_pieces;
  const int column = (static_cast<int>(threadIdx.x) - head * half_pieces) * kRowElements;
  const bool is_query = head < group_size;
  const bool is_key = has_new && head == group_size;
  const bool is_value = has_new && head == group_size + 1;
  const bool appends = *args.running != 0 && first_head == kv_head * group;
  const HalfRotation<T> rotate(args, args.positions[batch], is_query || is_key ? column : 0);

  wait_for_previous();
  if (is_query || is_key || is_value) {
    const int64_t new_row = (static_cast<int64_t>(batch) * args.kv_heads + kv_head) * head_dim;
    const T* from =
        is_key     ? args.key + new_row
        : is_value ? args.value + new_row
                   : args.query +
                         (static_cast<int64_t>(batch) * args.heads + first_head + head) * head_dim;
    const int second = column + head_dim / 2;
    RowPiece<T> low = load_projected(from + column);
    RowPiece<T> high = load_projected(from + second);
    if (!is_value) rotate(low, high);
    T* to = is_value ? new_value : query[is_key ? kGroup : head];
    *reinterpret_cast<RowPiece<T>*>(to + column) = low;
    *reinterpret_cast<RowPiece<T>*>(to + second) = high;
    if (appends && !is_query) {
      T* row = (is_key ? keys : values) + static_cast<int64_t>(cache.slot) * head_dim;
      *reinterpret_cast<RowPiece<T>*>(row + column) = low;
      *reinterpret_cast<RowPiece<T>*>(row + second) = high;
    }
  }
  __syncthreads();
  uint4 pieces[Keys::kKeyPieces];
#pragma unroll
  for (int j = 0; j < Keys::kKeyPieces; ++j) {
    const int at = 32 * j + 8 * t;
    pieces[j] =
        g < group_size && at < head_dim ? *reinterpret_cast<const uint4*>(query[g] + at) : uint4{};
  }

  const float scale = args.scale * kLog2e;
  float most = -INFINITY;  // of head g, as is sum, of which this lane has its keys' part
  float sum = 0.0f;
  float output[Keys::kValuePieces][4][4] = {};
  // The new token comes last, by one warp: the one key of its place.
  const Place new_place = {0, 1, -1, 0, 0};
  bool owes_new = has_new && warp == kWarps - 1;
  bool is_new = owes_new && places[0].is_empty();
  if (is_new) {
    owes_new = false;
    places[0] = new_place;
    tiles[0].load_keys(query[kGroup], new_place);
    tiles[0].load_values(new_value, new_place);
  }
  const auto attend_to = [&](Keys& tile, Place& next) {
    const Place now = next;
    float score[2][2];
    tile.multiply_keys(pieces, score);
    next.first += 2 * kStep;
    is_new = next.is_empty() && owes_new;
    if (is_new) {
      owes_new = false;
      next = new_place;
    }
    if (!next.is_empty()) tile.load_keys(is_new ? query[kGroup] : keys, next);

    float tile_most = -INFINITY;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool is_seen = now.has(now.first + 8 * n + 2 * t + i);
        score[n][i] = is_seen ? score[n][i] * scale : -INFINITY;
        tile_most = fmaxf(tile_most, score[n][i]);
      }
    }
    tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 1));
    tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 2));
    const float most_now = fmaxf(most, tile_most);
    const float before = rescale(most, most_now);
    most = most_now;
    sum *= before;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        score[n][i] = rescale(score[n][i], most);  // now its weight
        sum += score[n][i];
      }
    }
    if (__any_sync(0xffffffffu, before != 1.0f)) {
      const float first_before = __shfl_sync(0xffffffffu, before, 8 * t);
      const float second_before = __shfl_sync(0xffffffffu, before, 8 * t + 4);
#pragma unroll
      for (int c = 0; c < Keys::kValuePieces; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          output[c][e][0] *= first_before;
          output[c][e][1] *= second_before;
          output[c][e][2] *= first_before;
          output[c][e][3] *= second_before;
        }
      }
    }
    tile.add_values(score, output);
    if (!next.is_empty()) tile.load_values(is_new ? new_value : values, next);
  };
  while (!places[0].is_empty() || !places[1].is_empty()) {
    if (!places[0].is_empty()) attend_to(tiles[0], places[0]);
    if (!places[1].is_empty()) attend_to(tiles[1], places[1]);
  }

  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if (t == 0) {
    greatest[warp * kGroup + g] = most;
    sums[warp * kGroup + g] = sum;
  }
#pragma unroll
  for (int c = 0; c < Keys::kValuePieces; ++c) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float* to = joined + (warp * kGroup + 2 * t) * kDims + 8 * (g + 8 * c) + 2 * e;
      const float* from = output[c][e];
      *reinterpret_cast<float2*>(to) = make_float2(from[0], from[2]);
      *reinterpret_cast<float2*>(to + kDims) = make_float2(from[1], from[3]);
    }
  }
#if __CUDA_ARCH__ >= 900
  if (is_cluster) {
    wait_for_cluster();
    join_warps<T, kWarps, kGroup, kDims, true>(
        args, splits, joined, greatest, sums, first_head, group_size, &exchange);
    return;
  }
#endif
  join_warps<T, kWarps, kGroup, kDims>(
      args, splits, joined, greatest, sums, first_head, group_size);
}

template <typename T, int kDims, int kWarps>
cudaError_t launch(const DecodeStepAttention<T>& args, const StepLaunch& launch) {
  const int64_t group_blocks = ceil_div(args.heads / args.kv_heads, kGroup);
  const dim3 blocks(blocks_for(args.kv_heads * group_blocks),
                    static_cast<unsigned>(args.splits),
                    static_cast<unsigned>(args.batch));
  constexpr int kThreads = kWarps * kWarp;
  const auto run = [&](auto kernel, dim3 cluster) {
    constexpr int kShared = kWarps * kGroup * kDims * static_cast<int>(sizeof(float));
    const auto error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
    if (error != cudaSuccess) return error;
    return launch_clusters(launch, kernel, cluster, blocks, kThreads, kShared, args);
  };
  if (launch.has_bulk_copies && args.splits % kClusterSplits == 0) {
    return run(tiles_kernel<T, kDims, kWarps, true>, dim3(1, kClusterSplits));
  }
  return run(tiles_kernel<T, kDims, kWarps, false>, dim3(1));
}

template <typename T, int kDims>
cudaError_t launch(const DecodeStepAttention<T>& args, const StepLaunch& how) {
  // One block a multiprocessor, or two smaller ones where there are more.
  const int64_t groups = decode_step_groups(args.batch, args.heads, args.kv_heads);
  if (groups <= how.multiprocessors) return launch<T, kDims, 8>(args, how);
  return launch<T, kDims, 4>(args, how);
}

}  // namespace

template <typename T>
cudaError_t step_attention_tiles(const DecodeStepAttention<T>& args, const StepLaunch& how) {
  if (args.head_dim <= 64) return launch<T, 64>(args, how);
  return launch<T, kTileMostHeadDim>(args, how);
}

template cudaError_t step_attention_tiles(const DecodeStepAttention<bfloat16>&, const StepLaunch&);
template cudaError_t step_attention_tiles(const DecodeStepAttention<float16>&, const StepLaunch&);

}  // namespace mistral_ext::kernels::cuda
