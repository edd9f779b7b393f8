#pragma once

// The warpgroups of flash_attention that multiply.

#include <cmath>
#include <cstdint>

#include "mistral_ext/kernels/cuda/flash_attention_tiles.cuh"
#include "mistral_ext/kernels/cuda/warpgroup_product.cuh"

namespace mistral_ext::kernels::cuda::flash {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

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
      : args_(args), shared_(shared), group_(group) {
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    row_ = group * kGroupQueries + thread / kWarp * 16 + thread % kWarp / 4;
    column_ = thread % 4 * 2;
    scale_ = args.scale * static_cast<float>(M_LOG2E);
  }

  __device__ void run() {
    Walk walk(args_);
    if (group_ == kGroups - 1) arrive_at(turn_of(0), kGroups * kGroupThreads);
    while (walk.next(&place_)) {
      begin();
      attend();
      store();
    }
    // The other's last arrival.
    if (group_ == 0) wait_at(turn_of(0), kGroups * kGroupThreads);
  }

 private:
  __device__ void begin() {
    const int first_slot = args_.key_len - args_.query_len + place_.query;
    slot_ = first_slot + row_;
    first_slot_ = first_slot + group_ * kGroupQueries;
    for (float& output : outputs_) output = 0;
    for (int half = 0; half < 2; ++half) {
      greatest_[half] = -INFINITY;
      sum_[half] = 0;
    }
    shared_.query_is_there[turns_.queries.stage].wait(turns_.queries.parity);
    queries_ = describe_operand(shared_address(shared_.query[turns_.queries.stage]) +
                                    group_ * kGroupQueries * kAtomRowBytes,
                                1);
  }

  __device__ void attend() {
    Tile tile = next_tile();
    if (tile.index >= 0) {
      score_tile();
      products_wait<0>();
      finish_scores(tile);
      weigh();
      pack_weights();
      while (true) {
        tile = next_tile();
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
      finish_values();
    }
    finish_tile();  // the note that there are no more
  }

  __device__ Tile next_tile() {
    shared_.key_is_there[turns_.keys.stage].wait(turns_.keys.parity);
    return shared_.tiles[turns_.keys.stage];
  }

  __device__ void finish_tile() {
    if (threadIdx.x % kWarp == 0) shared_.key_is_read[turns_.keys.stage].arrive();
    turns_.keys.next();
  }

  // Begins scores_ = queries keys^T.
  __device__ void score_tile() {
    const uint64_t keys = describe_operand(shared_address(shared_.key[turns_.keys.stage]), 1);
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
    shared_.value_is_there[turns_.values.stage].wait(turns_.values.parity);
    const uint64_t values =
        describe_operand(shared_address(shared_.value[turns_.values.stage]), S::kAtomBytes);
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
    finish_tile();
    mask_scores(tile);
  }

  __device__ void finish_values() {
    hold(outputs_);
    hold(weights_);
    if (threadIdx.x % kWarp == 0) shared_.value_is_read[turns_.values.stage].arrive();
    turns_.values.next();
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
    uint8_t* mine = shared_.query[turns_.queries.stage] + group_ * kGroupQueries * kAtomRowBytes;
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
    // Copies of later queries go there.
    fence_copies();
    __syncwarp();
    if (threadIdx.x % kWarp == 0) shared_.query_is_read[turns_.queries.stage].arrive();
    turns_.queries.next();
  }

  const FlashAttention<T>& args_;
  S& shared_;
  const int group_;
  Place place_;
  int row_;  // of the block, and the one 8 further on
  int column_;
  int slot_;        // of row_
  int first_slot_;  // of the group
  float scale_;     // to powers of two
  uint64_t queries_;
  Turns turns_;
  float scores_[kScores];
  uint32_t weights_[kScores / 2];
  float outputs_[kOutputs];
  float greatest_[2];
  float sum_[2];  // of this thread's columns
  float factor_[2];
};

#endif

}  // namespace mistral_ext::kernels::cuda::flash
