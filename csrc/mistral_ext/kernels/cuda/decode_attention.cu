#include <cmath>

#include "mistral_ext/kernels/cuda/decode_attention.h"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kElements = 8;  // of a row that one thread holds
constexpr int kMostGroup = 8;
constexpr int64_t kShortestSplit = 32;  // keys
constexpr float kLog2e = 1.4426950408889634f;

// kElements of a row as they are stored, which takes fewer registers than as they are computed
// with.
template <typename T>
struct Piece {
  static constexpr int kWidth = kFullWidth<T>;
  Vector<T, kWidth> part[kElements / kWidth];

  __device__ void load(const T* from) {
    for (int i = 0; i < kElements / kWidth; ++i) {
      part[i] = reinterpret_cast<const Vector<T, kWidth>*>(from)[i];
    }
  }

  __device__ void widen_to(float* to) const {
    for (int j = 0; j < kElements; ++j) to[j] = widen(part[j / kWidth].at[j % kWidth]);
  }
};

// Softmax over some keys, so far, for one query head: the greatest score (base 2), the sum of the
// weights relative to it, and this thread's part of the weighted values.
struct State {
  float greatest = -INFINITY;
  float sum = 0.0f;
  float values[kElements] = {};
};

// What a difference of two greatest scores scales by; nothing seen yet scales to nothing.
__device__ float rescale(float from, float to) {
  return from == -INFINITY ? 0.0f : exp2f(from - to);
}

// A block: one key/value head of one sequence, up to kGroup of the query heads that read it, one
// split of the keys. kLanes threads hold a row, so a warp sees 32 / kLanes rows at a time; kAhead
// of them each are loaded before the first is used.
template <typename T, int kLanes, int kGroup, int kAhead>
__global__ void __launch_bounds__(kWarps * 32, kGroup == kMostGroup ? 1 : 2)
    decode_attention_kernel(const DecodeAttention<T> args) {
  constexpr int kRows = 32 / kLanes;  // of a warp
  const int64_t group = args.heads / args.kv_heads;
  const int64_t group_blocks = (group + kGroup - 1) / kGroup;
  const int64_t kv_head = blockIdx.x / group_blocks;
  const int64_t first_head = kv_head * group + blockIdx.x % group_blocks * kGroup;
  const int group_size =
      static_cast<int>(min(static_cast<int64_t>(kGroup), (kv_head + 1) * group - first_head));
  const int split = blockIdx.y;
  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes;  // of the block's kWarps * kRows
  // Rows of a warp may end at different keys: a sum is over the threads of one row.
  const uint32_t row_lanes = kLanes == 32 ? 0xffffffffu
                                          : ((1u << kLanes % 32) - 1)
                                                << (threadIdx.x % 32 / kLanes * kLanes);
  const int64_t column = lane * kElements;
  const bool holds = column < args.head_dim;

  const int64_t keys = args.last - args.first;
  const int64_t begin = args.first + keys * split / args.splits;
  const int64_t end = args.first + keys * (split + 1) / args.splits;

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const T* key =
        args.key + batch * args.key_batch_stride + kv_head * args.key_head_stride + column;
    const T* value =
        args.value + batch * args.value_batch_stride + kv_head * args.value_head_stride + column;
    const uint8_t* mask =
        args.mask == nullptr ? nullptr : args.mask + batch * args.mask_batch_stride;

    float query[kGroup][kElements] = {};
    State state[kGroup];
    for (int g = 0; g < kGroup; ++g) {
      if (g < group_size && holds) {
        Piece<T> piece;
        piece.load(args.query + batch * args.query_batch_stride +
                   (first_head + g) * args.query_head_stride + column);
        piece.widen_to(query[g]);
        for (float& x : query[g]) x *= args.scale * kLog2e;
      }
    }

    for (int64_t from = begin + row; from < end; from += kWarps * kRows * kAhead) {
      Piece<T> k[kAhead] = {};
      Piece<T> v[kAhead] = {};
      bool visible[kAhead];
      bool any_visible = false;
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int64_t at = from + a * kWarps * kRows;
        visible[a] = at < end && (mask == nullptr || mask[at * args.mask_stride] != 0);
        any_visible = any_visible || visible[a];
        if (visible[a] && holds) {
          k[a].load(key + at * args.key_stride);
          v[a].load(value + at * args.value_stride);
        }
      }
      if (!any_visible) continue;

      float score[kGroup][kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        float elements[kElements];
        k[a].widen_to(elements);
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
          float sum = 0.0f;
          for (int j = 0; j < kElements; ++j) sum += query[g][j] * elements[j];
          score[g][a] = sum;
        }
      }
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
        float greatest = state[g].greatest;
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          for (int offset = kLanes / 2; offset > 0; offset /= 2) {
            score[g][a] += __shfl_xor_sync(row_lanes, score[g][a], offset);
          }
          if (!visible[a]) score[g][a] = -INFINITY;
          greatest = fmaxf(greatest, score[g][a]);
        }
        const float mine = rescale(state[g].greatest, greatest);
        state[g].greatest = greatest;
        state[g].sum *= mine;
        for (float& x : state[g].values) x *= mine;
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          score[g][a] = visible[a] ? exp2f(score[g][a] - greatest) : 0.0f;  // now its weight
          state[g].sum += score[g][a];
        }
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        float elements[kElements];
        v[a].widen_to(elements);
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
          for (int j = 0; j < kElements; ++j) state[g].values[j] += score[g][a] * elements[j];
        }
      }
    }

    // The rows of the block join theirs, one query head after the other.
    __shared__ float greatest[kWarps * kRows];
    __shared__ float sums[kWarps * kRows];
    __shared__ float values[kWarps * kRows][kLanes * kElements];
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {  // unrolled, or the states would live in memory
      if (g >= group_size) break;
      __syncthreads();
      if (lane == 0) {
        greatest[row] = state[g].greatest;
        sums[row] = state[g].sum;
      }
      for (int j = 0; j < kElements; ++j) values[row][column + j] = state[g].values[j];
      __syncthreads();
      float* partial =
          args.partial +
          ((batch * args.heads + first_head + g) * args.splits + split) * (args.head_dim + 2);
      float most = -INFINITY;
      for (int r = 0; r < kWarps * kRows; ++r) most = fmaxf(most, greatest[r]);
      for (int64_t d = threadIdx.x; d < args.head_dim; d += blockDim.x) {
        float total = 0.0f;
        for (int r = 0; r < kWarps * kRows; ++r) {
          total += rescale(greatest[r], most) * values[r][d];
        }
        partial[2 + d] = total;
      }
      if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int r = 0; r < kWarps * kRows; ++r) total += rescale(greatest[r], most) * sums[r];
        partial[0] = most;
        partial[1] = total;
      }
    }
    __syncthreads();
  }
}

// A block a query head: joins the splits.
template <typename T>
__global__ void join_splits_kernel(const DecodeAttention<T> args) {
  for (int64_t head = blockIdx.x; head < args.batch * args.heads; head += gridDim.x) {
    const float* partial = args.partial + head * args.splits * (args.head_dim + 2);
    const auto part = [&](int split) { return partial + split * (args.head_dim + 2); };
    float most = -INFINITY;
    for (int s = 0; s < args.splits; ++s) most = fmaxf(most, part(s)[0]);
    float sum = 0.0f;
    for (int s = 0; s < args.splits; ++s) sum += rescale(part(s)[0], most) * part(s)[1];
    for (int64_t d = threadIdx.x; d < args.head_dim; d += blockDim.x) {
      float total = 0.0f;
      for (int s = 0; s < args.splits; ++s) total += rescale(part(s)[0], most) * part(s)[2 + d];
      // A row that sees no key gives 0.
      args.output[head * args.head_dim + d] = narrow<T>(sum == 0.0f ? 0.0f : total / sum);
    }
    if (threadIdx.x == 0) {
      args.logsumexp[head] = sum == 0.0f ? -INFINITY : most / kLog2e + logf(sum);
    }
  }
}

template <typename T, int kLanes, int kGroup>
void launch_group(const DecodeAttention<T>& args, cudaStream_t stream) {
  constexpr int kAhead = kGroup <= 2 ? 4 : 2;
  const int64_t group_blocks = ceil_div(args.heads / args.kv_heads, kGroup);
  const dim3 blocks(blocks_for(args.kv_heads * group_blocks),
                    static_cast<unsigned>(args.splits),
                    blocks_for(args.batch, kMostBlocksAside));
  decode_attention_kernel<T, kLanes, kGroup, kAhead><<<blocks, kWarps * 32, 0, stream>>>(args);
}

template <typename T, int kLanes>
void launch(const DecodeAttention<T>& args, cudaStream_t stream) {
  const int64_t group = args.heads / args.kv_heads;
  if (group == 1) {
    launch_group<T, kLanes, 1>(args, stream);
  } else if (group == 2) {
    launch_group<T, kLanes, 2>(args, stream);
  } else if (group <= 4) {
    launch_group<T, kLanes, 4>(args, stream);
  } else {
    launch_group<T, kLanes, kMostGroup>(args, stream);
  }
}

}  // namespace

int decode_attention_splits(int64_t batch, int64_t heads, int64_t kv_heads, int64_t keys, int sms) {
  const int64_t blocks =
      batch * kv_heads * ceil_div(heads / kv_heads, static_cast<int64_t>(kMostGroup));
  const int64_t wanted = std::max<int64_t>(1, 2 * sms / blocks);
  return static_cast<int>(std::clamp<int64_t>(ceil_div(keys, kShortestSplit), 1, wanted));
}

template <typename T>
cudaError_t decode_attention(const DecodeAttention<T>& args, cudaStream_t stream) {
  if (args.batch * args.heads * args.head_dim == 0) return cudaSuccess;
  if (args.head_dim <= 8 * kElements) {
    launch<T, 8>(args, stream);
  } else if (args.head_dim <= 16 * kElements) {
    launch<T, 16>(args, stream);
  } else {
    launch<T, 32>(args, stream);
  }
  if (const auto error = cudaGetLastError(); error != cudaSuccess) return error;
  join_splits_kernel<T>
      <<<blocks_for(args.batch * args.heads), threads_for(args.head_dim, 256), 0, stream>>>(args);
  return cudaGetLastError();
}

template cudaError_t decode_attention(const DecodeAttention<float>&, cudaStream_t);
template cudaError_t decode_attention(const DecodeAttention<bfloat16>&, cudaStream_t);
template cudaError_t decode_attention(const DecodeAttention<float16>&, cudaStream_t);

}  // namespace mistral_ext::kernels::cuda
