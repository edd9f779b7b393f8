#pragma once

// What the warps of a block of flash_attention share: where it stands, its shared memory, and the
// warp that copies tiles of keys.

#include <algorithm>
#include <cstdint>

#include "mistral_ext/kernels/cuda/flash_attention.h"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/tensor_copy.cuh"

namespace mistral_ext::kernels::cuda::flash {

inline constexpr int kGroupThreads = 128;  // of a warpgroup
inline constexpr int kGroups = 2;          // warpgroups that compute; one more copies
inline constexpr int kGroupQueries = 64;
inline constexpr int kQueries = kGroups * kGroupQueries;  // of a block
inline constexpr int kStages = 2;                         // of queries, keys and values
inline constexpr int kThreads = (kGroups + 1) * kGroupThreads;
inline constexpr int kWords = kFlashKeys / 32;

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

  alignas(1024) uint8_t query[kStages][kTileBytes];  // and then the output
  alignas(1024) uint8_t key[kStages][kTileBytes];
  alignas(1024) uint8_t value[kStages][kTileBytes];
  Tile tiles[kStages];
  CopyBarrier query_is_there[kStages], query_is_read[kStages];
  CopyBarrier key_is_there[kStages], key_is_read[kStages];
  CopyBarrier value_is_there[kStages], value_is_read[kStages];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static_assert(kQueries == kFlashKeys);

// A tile of queries.
struct Place {
  int query, head, batch;  // the first query
};

// The tiles of a block, one after the other. Those with the most keys come first, and blocks of the
// same keys run beside one another; every other round goes backwards, so that no block gets the
// longer ones of all.
class Walk {
 public:
  template <typename T>
  __device__ explicit Walk(const FlashAttention<T>& args)
      : heads_(args.heads),
        batch_(args.batch),
        tiles_((args.query_len + kQueries - 1) / kQueries),
        all_(static_cast<int64_t>(tiles_) * heads_ * batch_) {}

  // Whether there is one more.
  __device__ bool next(Place* place) {
    const int64_t begin = round_ * gridDim.x;
    const int64_t i = begin + (round_ % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
    ++round_;
    if (i >= all_) return false;
    const int at = static_cast<int>(i);
    *place = {.query = (tiles_ - 1 - at / (heads_ * batch_)) * kQueries,
              .head = at % heads_,
              .batch = at / heads_ % batch_};
    return true;
  }

 private:
  int heads_, batch_, tiles_;
  int64_t all_;
  int64_t round_ = 0;
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

// Where the copies stand.
struct Turns {
  Turn<kStages> queries, keys, values;
};

// One warp. A lane looks at a tile, and copies it if any of it is visible.
template <typename T, int kHeadDim>
__device__ void copy_tiles_of(const Launch<T>& launch,
                              const Place& place,
                              Turns& turns,
                              Shared<kHeadDim>& shared) {
  using S = Shared<kHeadDim>;
  const auto& args = launch.args;
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
  shared.query_is_read[turns.queries.stage].wait(turns.queries.parity ^ 1);
  if (lane == 0) {
    copy(shared.query[turns.queries.stage],
         &launch.query,
         place.query,
         place.head,
         &shared.query_is_there[turns.queries.stage]);
  }
  turns.queries.next();

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

  auto& keys = turns.keys;
  auto& values = turns.values;
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
  keys.next();
}

template <typename T, int kHeadDim>
__device__ void copy_tiles(const Launch<T>& launch, Shared<kHeadDim>& shared) {
  Turns turns;
  Walk walk(launch.args);
  for (Place place; walk.next(&place);) copy_tiles_of(launch, place, turns, shared);
}

#endif

}  // namespace mistral_ext::kernels::cuda::flash
