#pragma once

#include <algorithm>
#include <cstdint>

#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/linear_few_rows_plan.h"

namespace mistral_ext::kernels::cuda {

// Of linear_small_batch, shared by its kernel and its launch.

inline constexpr int kTileRows = 16;  // of x that the matrix units take at once
inline constexpr int kUnitRows = 8;   // of W
// Four lanes of every warp have a piece of the same row at once: a step.
inline constexpr int kStepPieces = 4 * kProductWarps;
inline constexpr int kStepBytes = kStepPieces * kPieceBytes;
inline constexpr int kHeldSteps = 16;  // of x, times tiles, that threads hold in registers
inline constexpr int kMostCluster = 8;
// Rows of a unit lie this far beyond a multiple of 128 bytes: lanes that load from two rows at once
// then meet different banks.
inline constexpr int kPitchBeyond = 64;

inline constexpr int kSlotBytes = 16 * 1024;     // about: what the copying thread waits for at once
inline constexpr int kShortRowBytes = 2 * 1024;  // rows up to here are copied several at once
inline constexpr int kBatchSlots = 56;
inline constexpr int kBatchRingUnits = 56;
inline constexpr int kBatchShared = 227 * 1024;
inline constexpr int kBarrierBytes = (kBatchSlots + kBatchRingUnits + 16) * 8;
// Sums of a set: what a block adds up before its threads finish it together, a pair each.
inline constexpr int kBatchSetSums = 2 * kProductThreads;
inline constexpr int kBatchSetBytes =
    kBatchSetSums * kProductWarps * static_cast<int>(sizeof(float));

// The blocks of a cluster have the steps of every row among them, each as many. A cluster takes
// groups of rows, `clusters` apart, and of each group the rows of one matrix at a time (a unit):
// with kSwiGlu two, else one.
struct SmallBatchPlan {
  int pieces;  // of a row
  int steps;   // of a block
  int cluster;
  int clusters;
  int units_a_group;                    // 2 with kSwiGlu
  int groups_before[kFewMatrices + 1];  // those of the matrices ahead; then all
  // Of the ring: a slot is what one barrier stands for.
  int slot_rows;  // of a unit
  int unit_slots;
  bool is_packed;  // the rows of a slot lie side by side, one copy
  int pitch;       // from row to row of a unit
  int unit_bytes;
  int ring_units;  // that there is room for
  int slots_in_flight;
  int ring_at;  // in shared memory
  int zero;     // which the compiler does not know

  // From shared memory's begin: barriers, sums of squares, sums of other blocks, sums, the ring.
  __host__ __device__ int squares_at() const { return kBarrierBytes; }
  __host__ __device__ int received_at(int tiles) const {
    return squares_at() + cluster * tiles * kTileRows * kProductWarps * 4;
  }
  __host__ __device__ int sums_at(int tiles) const {
    return received_at(tiles) + (cluster > 1 ? cluster * kBatchSetSums * 4 : 0);
  }
};

inline int64_t small_batch_features(int tiles) {
  return static_cast<int64_t>(kMostCluster) * kHeldSteps / tiles * kStepBytes / 2;
}

// in_features is at most small_batch_features(tiles).
template <typename T>
SmallBatchPlan divide_small_batch(const LinearFewRows<T>& args, int tiles) {
  const int64_t row_bytes = args.in_features * static_cast<int64_t>(sizeof(T));
  const int64_t steps = ceil_div(row_bytes, kStepBytes);
  SmallBatchPlan plan = {};
  plan.pieces = static_cast<int>(row_bytes / kPieceBytes);
  // All of x goes to every cluster, over the same wires as the weights: halves of it cost less, but
  // a little at the end.
  plan.cluster = args.rows > kTileRows / 2 && steps > kHeldSteps / 2 ? 2 : 1;
  while (ceil_div(steps, plan.cluster) > kHeldSteps / tiles) plan.cluster *= 2;
  plan.steps = static_cast<int>(ceil_div(steps, plan.cluster));
  return plan;
}

// The rest, with as many clusters at most.
template <typename T>
void plan_small_batch(const LinearFewRows<T>& args,
                      int tiles,
                      int most_clusters,
                      int bytes_in_flight,
                      SmallBatchPlan* plan) {
  const bool is_pair = args.epilogue == LinearEpilogue::kSwiGlu;
  const int matrices = is_pair ? 1 : args.count;
  plan->units_a_group = is_pair ? 2 : 1;
  int64_t groups = 0;
  for (int i = 0; i < kFewMatrices; ++i) {
    if (i < matrices) groups += ceil_div(args.matrices[i].out_features, kUnitRows);
    plan->groups_before[i + 1] = static_cast<int>(groups);
  }
  // Clusters that all have the same to do, or one group less.
  plan->clusters = static_cast<int>(ceil_div(groups, ceil_div(groups, most_clusters)));

  const int row_bytes = plan->pieces * kPieceBytes;
  const int part_bytes = std::min(plan->steps * kStepBytes, row_bytes);
  plan->slot_rows = 1;
  while (plan->slot_rows < kUnitRows && 2 * plan->slot_rows * part_bytes <= kSlotBytes) {
    plan->slot_rows *= 2;
  }
  plan->unit_slots = kUnitRows / plan->slot_rows;
  plan->is_packed = part_bytes == row_bytes && row_bytes <= kShortRowBytes;
  const int spread =
      static_cast<int>(ceil_div(part_bytes - kPitchBeyond, 128)) * 128 + kPitchBeyond;
  plan->pitch = plan->is_packed ? row_bytes : spread;
  plan->unit_bytes = kUnitRows * plan->pitch;
  plan->ring_at = (plan->sums_at(tiles) + 2 * kBatchSetBytes + 127) / 128 * 128;
  plan->ring_units = std::min({(kBatchShared - plan->ring_at) / plan->unit_bytes,
                               kBatchSlots / plan->unit_slots,
                               kBatchRingUnits});
  plan->slots_in_flight = std::clamp(
      bytes_in_flight / (plan->slot_rows * part_bytes), 1, plan->ring_units * plan->unit_slots);
}

}  // namespace mistral_ext::kernels::cuda
