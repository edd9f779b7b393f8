#include <algorithm>
#include <cmath>

#include "mistral_ext/kernels/cuda/flash_attention.h"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/vector.cuh"
#include "mistral_ext/kernels/cuda/warpgroup_product.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kGroupThreads = 128;  // of a warpgroup
constexpr int kGroups = 2;          // warpgroups that compute; one more copies
constexpr int kGroupQueries = 64;
constexpr int kQueries = kGroups * kGroupQueries;  // of a block
constexpr int kStages = 2;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kWords = kFlashKeys / 32;

// What the block that copies tells the others of a tile of keys.
struct alignas(16) Tile {
  int index;  // -1: there are no more
  bool masks_keys;
  bool compares_ids;
  uint32_t visible[kWords];
};

template <typename T>
struct Launch {
  FlashAttention<T> args;
  CUtensorMap query, key, value;
};

template <int kHeadDim>
struct Shared {
  static constexpr int kAtoms = kHeadDim / kAtomColumns;
  static constexpr int kAtomBytes = kFlashKeys * kAtomRowBytes;  // of 128 queries as of 128 keys
  static constexpr int kTileBytes = kAtoms * kAtomBytes;

  alignas(1024) uint8_t query[kTileBytes];  // and the output
  alignas(1024) uint8_t key[kStages][kTileBytes];
  alignas(1024) uint8_t value[kStages][kTileBytes];
  Tile tiles[kStages];
  CopyBarrier query_is_there;
  CopyBarrier key_is_there[kStages], key_is_read[kStages];
  CopyBarrier value_is_there[kStages], value_is_read[kStages];
};

// A stage of a ring, and which time round it is.
struct Turn {
  int stage = 0;
  int parity = 0;

  __device__ void next() {
    stage = (stage + 1) % kStages;
    parity ^= stage == 0;
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static_assert(kQueries == kFlashKeys);

// The tile of queries of a block. Those with the most keys come first, and blocks of the same keys
// run beside one another.
struct Place {
  int query, head, batch;  // the first query

  __device__ Place(int batches, int heads, int query_len) {
    const int tiles = (query_len + kQueries - 1) / kQueries;
    const int of_tile = heads * batches;
    query = (tiles - 1 - static_cast<int>(blockIdx.x) / of_tile) * kQueries;
    head = static_cast<int>(blockIdx.x) % heads;
    batch = static_cast<int>(blockIdx.x) / heads % batches;
  }
};

// Tiles of keys that any query of a block may see, were there no mask.
struct KeyTiles {
  int begin, end;

  template <typename T>
  __device__ KeyTiles(const FlashAttention<T>& args, int query) {
    const int first_slot = args.key_len - args.query_len + query;
    const int last_slot = min(first_slot + kQueries, args.key_len) - 1;
    end = (args.is_causal ? last_slot : args.key_len - 1) / kFlashKeys + 1;
    begin = args.sliding_window > 0 ? max(0, first_slot - args.sliding_window + 1) / kFlashKeys : 0;
  }
};

__device__ inline void wait_at(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void arrive_at(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// The warpgroups issue their products in turns, so that one's softmax runs beside the other's
// products. Barrier 0 is the block's.
__device__ inline int turn_of(int group) { return 1 + group; }
__device__ inline int group_barrier(int group) { return 1 + kGroups + group; }

// One warp. A lane looks at a tile, and copies it if any of it is visible.
template <typename T, int kHeadDim>
__device__ void copy_tiles(const Launch<T>& launch, Shared<kHeadDim>& shared) {
  using S = Shared<kHeadDim>;
  const auto& args = launch.args;
  const Place place(args.batch, args.heads, args.query_len);
  const KeyTiles all(args, place.query);
  const int kv_head = place.head / (args.heads / args.kv_heads);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto copy = [&](uint8_t* to, const CUtensorMap* from, int row, int head, CopyBarrier* b) {
    b->arrive_and_expect(S::kTileBytes);
#pragma unroll
    for (int atom = 0; atom < S::kAtoms; ++atom) {
      copy_box(to + atom * S::kAtomBytes, from, atom * kAtomColumns, row, head, place.batch, b);
    }
  };
  if (lane == 0) copy(shared.query, &launch.query, place.query, place.head, &shared.query_is_there);

  const uint32_t* visible = nullptr;
  if (args.visible != nullptr) visible = args.visible + place.batch * args.visible_batch_stride;
  const int64_t* ranges = nullptr;
  int64_t least = 0;
  int64_t greatest = 0;
  if (args.sequence_ids != nullptr) {
    ranges = args.sequence_ranges + place.batch * args.sequence_ranges_batch_stride;
    const int first_slot = args.key_len - args.query_len + place.query;
    const int first = first_slot / kFlashKeys;
    const int last = (min(first_slot + kQueries, args.key_len) - 1) / kFlashKeys;
    least = min(ranges[2 * first], ranges[2 * last]);
    greatest = max(ranges[2 * first + 1], ranges[2 * last + 1]);
  }

  Turn keys;
  Turn values;
  int tile_before = -1;
  const auto copy_values = [&] {
    shared.value_is_read[values.stage].wait(values.parity ^ 1);
    if (lane == 0) {
      copy(shared.value[values.stage],
           &launch.value,
           tile_before * kFlashKeys,
           kv_head,
           &shared.value_is_there[values.stage]);
    }
    values.next();
  };
  for (int from = all.end - 1; from >= all.begin; from -= kWarp) {
    Tile tile = {.index = from - lane, .masks_keys = false, .compares_ids = false, .visible = {}};
    bool is_seen = tile.index >= all.begin;
    if (is_seen && visible != nullptr) {
      const uint4 words = reinterpret_cast<const uint4*>(visible)[tile.index];
      is_seen = (words.x | words.y | words.z | words.w) != 0;
      tile.masks_keys = (words.x & words.y & words.z & words.w) != ~0u;
      tile.visible[0] = words.x;
      tile.visible[1] = words.y;
      tile.visible[2] = words.z;
      tile.visible[3] = words.w;
    }
    if (is_seen && ranges != nullptr) {
      const int64_t low = ranges[2 * tile.index];
      const int64_t high = ranges[2 * tile.index + 1];
      is_seen = low <= greatest && least <= high;
      tile.compares_ids = low != high || least != greatest;
    }
    for (unsigned left = __ballot_sync(~0u, is_seen); left != 0; left &= left - 1) {
      const int chosen = __ffs(static_cast<int>(left)) - 1;
      shared.key_is_read[keys.stage].wait(keys.parity ^ 1);
      if (lane == chosen) {
        shared.tiles[keys.stage] = tile;
        copy(shared.key[keys.stage],
             &launch.key,
             tile.index * kFlashKeys,
             kv_head,
             &shared.key_is_there[keys.stage]);
      }
      keys.next();
      if (tile_before >= 0) copy_values();
      tile_before = from - chosen;
    }
  }
  if (tile_before >= 0) copy_values();
  shared.key_is_read[keys.stage].wait(keys.parity ^ 1);
  if (lane == 0) {
    shared.tiles[keys.stage].index = -1;
    shared.key_is_there[keys.stage].arrive();
  }
}

// 2 to the power of x; 0 for -infinity.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of the lanes that hold the columns of a row.
__device__ inline float greatest_of_row(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float sum_of_row(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

template <typename T>
__device__ uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<bfloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}
template <>
__device__ inline uint32_t pack<float16>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

// The 64 queries of one warpgroup. A thread has columns 8 j + 2 (lane % 4) + {0, 1} of two rows.
template <typename T, int kHeadDim>
class Queries {
  using S = Shared<kHeadDim>;
  static constexpr int kSteps = kHeadDim / 16;       // of a product over head_dim
  static constexpr int kKeySteps = kFlashKeys / 16;  // of one over keys
  static constexpr int kScores = kFlashKeys / 2;     // of a thread
  static constexpr int kOutputs = kHeadDim / 2;

 public:
  __device__ Queries(const FlashAttention<T>& args, S& shared, int group)
      : args_(args),
        shared_(shared),
        group_(group),
        place_(args.batch, args.heads, args.query_len) {
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    row_ = group * kGroupQueries + thread / kWarp * 16 + thread % kWarp / 4;
    column_ = thread % 4 * 2;
    slot_ = args.key_len - args.query_len + place_.query + row_;
    first_slot_ = args.key_len - args.query_len + place_.query + group * kGroupQueries;
    scale_ = args.scale * static_cast<float>(M_LOG2E);
    queries_ =
        describe_operand(shared_address(shared.query) + group * kGroupQueries * kAtomRowBytes, 1);
  }

  __device__ void run() {
    shared_.query_is_there.wait(0);
    shared_.key_is_there[keys_.stage].wait(keys_.parity);
    Tile tile = shared_.tiles[keys_.stage];
    const bool sees_any = tile.index >= 0;
    if (sees_any) {
      if (group_ == kGroups - 1) arrive_at(turn_of(0), kGroups * kGroupThreads);
      score_tile();
      products_wait<0>();
      finish_scores(tile);
      weigh();
      pack_weights();
      while (true) {
        shared_.key_is_there[keys_.stage].wait(keys_.parity);
        tile = shared_.tiles[keys_.stage];
        if (tile.index < 0) break;
        wait_at(turn_of(group_), kGroups * kGroupThreads);
        score_tile();
        add_values();
        arrive_at(turn_of((group_ + 1) % kGroups), kGroups * kGroupThreads);
        products_wait<1>();
        finish_scores(tile);
        weigh();
        hold(scores_);
        // The branch keeps the softmax before the wait, beside the product with the values.
        if (__any_sync(~0u, factor_[0] != 1 || factor_[1] != 1)) {
          products_wait<0>();
          rescale();
        }
        products_wait<0>();
        finish_values();
        pack_weights();
      }
      add_values();
      products_wait<0>();
      hold(outputs_);
    }
    store();
    // The other's last arrival.
    if (sees_any && group_ == 0) wait_at(turn_of(0), kGroups * kGroupThreads);
  }

 private:
  // Begins scores_ = queries keys^T.
  __device__ void score_tile() {
    const uint64_t keys = describe_operand(shared_address(shared_.key[keys_.stage]), 1);
    hold(scores_);
    products_begin();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      constexpr int kStepsOfAtom = kAtomColumns / 16;
      const int offset = step / kStepsOfAtom * S::kAtomBytes + step % kStepsOfAtom * 32;
      product(T{}, scores_, advance(queries_, offset), advance(keys, offset), step > 0);
    }
    products_commit();
  }

  // Begins outputs_ += weights values.
  __device__ void add_values() {
    shared_.value_is_there[values_.stage].wait(values_.parity);
    const uint64_t values =
        describe_operand(shared_address(shared_.value[values_.stage]), S::kAtomBytes);
    hold(outputs_);
    hold(weights_);
    products_begin();
#pragma unroll
    for (int step = 0; step < kKeySteps; ++step) {
      add_product(T{}, outputs_, weights_ + 4 * step, advance(values, step * 16 * kAtomRowBytes));
    }
    products_commit();
  }

  __device__ void finish_scores(const Tile& tile) {
    hold(scores_);
    if (threadIdx.x % kWarp == 0) shared_.key_is_read[keys_.stage].arrive();
    keys_.next();
    mask_scores(tile);
  }

  __device__ void finish_values() {
    hold(outputs_);
    hold(weights_);
    if (threadIdx.x % kWarp == 0) shared_.value_is_read[values_.stage].arrive();
    values_.next();
  }

  __device__ void mask_scores(const Tile& tile) {
    const int first_key = tile.index * kFlashKeys;
    const int last_key = first_key + kFlashKeys - 1;
    const bool is_cut = last_key > (args_.is_causal ? first_slot_ : args_.key_len - 1) ||
                        (args_.sliding_window > 0 &&
                         first_key <= first_slot_ + kGroupQueries - 1 - args_.sliding_window);
    if (is_cut) {
      const int mine = first_key + column_;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int slot = slot_ + 8 * half;
        const int last =
            (args_.is_causal ? min(slot, args_.key_len - 1) : args_.key_len - 1) - mine;
        const int first = args_.sliding_window > 0 ? slot - args_.sliding_window + 1 - mine : -mine;
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
          if (i / 2 % 2 != half) continue;
          const int key = i / 4 * 8 + i % 2;
          if (key > last || key < first) scores_[i] = -INFINITY;
        }
      }
    }
    if (tile.masks_keys) {
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        const int key = i / 4 * 8 + i % 2;
        if ((tile.visible[key / 32] >> (key % 32 + column_) & 1) == 0) scores_[i] = -INFINITY;
      }
    }
    if (tile.compares_ids) compare_ids(first_key + column_);
  }

  __device__ void compare_ids(int mine) {
    const int64_t* ids = args_.sequence_ids + place_.batch * args_.sequence_ids_batch_stride;
    const int most = args_.key_len - 1;
    const int64_t own[2] = {ids[min(slot_, most)], ids[min(slot_ + 8, most)]};
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const int64_t id = ids[min(mine + i / 4 * 8 + i % 2, most)];
      if (id != own[i / 2 % 2]) scores_[i] = -INFINITY;
    }
  }

  // Scores become weights, of the greatest score so far.
  __device__ void weigh() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float greatest = greatest_[half];
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        if (i / 2 % 2 == half) greatest = fmaxf(greatest, scores_[i]);
      }
      greatest = greatest_of_row(greatest);
      // Of a row that has seen no key it is -infinity: 0 in its place keeps NaN away.
      const float shift = greatest == -INFINITY ? 0.0f : greatest * scale_;
      factor_[half] = power_of_two(greatest_[half] * scale_ - shift);
      greatest_[half] = greatest;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        if (i / 2 % 2 != half) continue;
        scores_[i] = power_of_two(scores_[i] * scale_ - shift);
        sum += scores_[i];
      }
      sum_[half] = sum_[half] * factor_[half] + sum;
    }
  }

  __device__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      weights_[i] = pack<T>(scores_[2 * i], scores_[2 * i + 1]);
    }
  }

  __device__ void rescale() {
    hold(outputs_);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) outputs_[i] *= factor_[i / 2 % 2];
  }

  // Through the shared memory of this group's queries, so that whole rows are written.
  __device__ void store() {
    uint8_t* mine = shared_.query + group_ * kGroupQueries * kAtomRowBytes;
    // The 16-byte units of row r, permuted by r % 8.
    const auto unit = [&](int row, int column) {
      const int atom = column / kAtomColumns;
      const int i = column % kAtomColumns / 8 ^ row % 8;
      return mine + atom * S::kAtomBytes + row * kAtomRowBytes + i * 16;
    };
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = sum_of_row(sum_[half]);
      const float factor = sum == 0 ? 0.0f : 1 / sum;
      const int row = row_ + 8 * half;
      const int query = place_.query + row;
      if (column_ == 0 && query < args_.query_len) {
        const int64_t at =
            (static_cast<int64_t>(place_.batch) * args_.heads + place_.head) * args_.query_len;
        args_.logsumexp[at + query] =
            sum == 0 ? -INFINITY : greatest_[half] * args_.scale + logf(sum);
      }
      const int row_of_group = row - group_ * kGroupQueries;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const uint32_t both =
            pack<T>(outputs_[4 * j + 2 * half] * factor, outputs_[4 * j + 2 * half + 1] * factor);
        *reinterpret_cast<uint32_t*>(unit(row_of_group, 8 * j) + column_ * sizeof(T)) = both;
      }
    }
    wait_at(group_barrier(group_), kGroupThreads);
    constexpr int kUnits = kHeadDim / 8;  // of a row
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
#pragma unroll
    for (int i = thread; i < kGroupQueries * kUnits; i += kGroupThreads) {
      const int row = i / kUnits;
      const int query = place_.query + group_ * kGroupQueries + row;
      if (query >= args_.query_len) break;
      const int64_t at =
          (static_cast<int64_t>(place_.batch) * args_.query_len + query) * args_.heads +
          place_.head;
      auto* to = reinterpret_cast<uint4*>(args_.output + at * kHeadDim);
      to[i % kUnits] = *reinterpret_cast<const uint4*>(unit(row, i % kUnits * 8));
    }
  }

  const FlashAttention<T>& args_;
  S& shared_;
  const int group_;
  const Place place_;
  int row_;  // of the block, and the one 8 further on
  int column_;
  int slot_;        // of row_
  int first_slot_;  // of the group
  float scale_;     // to powers of two
  uint64_t queries_;
  Turn keys_, values_;
  float scores_[kScores];
  uint32_t weights_[kScores / 2];
  float outputs_[kOutputs] = {};
  float greatest_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {};  // of this thread's columns
  float factor_[2];
};

#endif

template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    flash_attention_kernel(const __grid_constant__ Launch<T> launch) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using S = Shared<kHeadDim>;
  extern __shared__ uint8_t bytes[];
  const uint32_t past = shared_address(bytes) % 1024;
  auto& shared = *reinterpret_cast<S*>(bytes + (1024 - past) % 1024);
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads - 1;
  if (threadIdx.x == 0) {
    constexpr int kReaders = kGroups * kGroupThreads / kWarp;
    shared.query_is_there.init(1);
    for (int stage = 0; stage < kStages; ++stage) {
      shared.key_is_there[stage].init(1);
      shared.value_is_there[stage].init(1);
      shared.key_is_read[stage].init(kReaders);
      shared.value_is_read[stage].init(kReaders);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x < kWarp) copy_tiles<T, kHeadDim>(launch, shared);
  } else {
    take_registers<240>();
    Queries<T, kHeadDim>(launch.args, shared, group).run();
  }
#endif
}

template <typename T, int kHeadDim>
cudaError_t launch(const FlashAttention<T>& args, cudaStream_t stream) {
  Launch<T> work = {.args = args, .query = {}, .key = {}, .value = {}};
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
  auto error = describe_tensor(query, kQueries, &work.query);
  if (error == cudaSuccess) error = describe_tensor(key, kFlashKeys, &work.key);
  if (error == cudaSuccess) error = describe_tensor(value, kFlashKeys, &work.value);
  constexpr int kShared = sizeof(Shared<kHeadDim>) + 1024;
  const auto kernel = flash_attention_kernel<T, kHeadDim>;
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  }
  if (error != cudaSuccess) return error;
  const int64_t tiles = ceil_div(args.query_len, kQueries);
  const int64_t blocks = tiles * args.heads * args.batch;
  if (blocks >= kMostBlocks) return cudaErrorInvalidValue;
  kernel<<<static_cast<unsigned>(blocks), kThreads, kShared, stream>>>(work);
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
