#pragma once

// The work of linear_small_batch, divided, and the ring that brings its weights to shared memory.

#include "mistral_ext/kernels/cuda/bulk_copy.cuh"
#include "mistral_ext/kernels/cuda/linear_small_batch_plan.h"
#include "mistral_ext/kernels/cuda/row_units.cuh"

namespace mistral_ext::kernels::cuda {

template <typename T>
struct SmallBatchWork {
  LinearFewRows<T> args;
  SmallBatchPlan plan;
};

#if __CUDA_ARCH__ >= 900
template <typename T>
__device__ int count_units(const SmallBatchWork<T>& work, int cluster) {
  return count_row_units(work.plan, cluster, work.plan.clusters);
}

// The cluster's.
template <typename T>
__device__ RowUnit unit_at(const SmallBatchWork<T>& work, int cluster, int index) {
  return row_unit_at<kUnitRows>(work.args, work.plan, cluster, work.plan.clusters, index);
}

// What a block has in its shared memory.
struct SmallBatchShared {
  CopyBarrier* full;      // one a slot
  CopyBarrier* empty;     // one a unit
  CopyBarrier* squared;   // sums of squares of the whole cluster are there
  CopyBarrier* received;  // so are the sums of a set
  float* squares;
  float* others;  // [cluster][kBatchSetSums]
  float* sums;    // [2][kProductWarps][kBatchSetSums]
  unsigned char* ring;

  __device__ SmallBatchShared(unsigned char* shared, const SmallBatchPlan& plan, int tiles)
      : full(reinterpret_cast<CopyBarrier*>(shared)),
        empty(full + kBatchSlots),
        squared(empty + kBatchRingUnits),
        received(squared + 1),
        squares(reinterpret_cast<float*>(shared + plan.squares_at())),
        others(reinterpret_cast<float*>(shared + plan.received_at(tiles))),
        sums(reinterpret_cast<float*>(shared + plan.sums_at(tiles))),
        ring(shared + plan.ring_at) {}

  __device__ void init(const SmallBatchPlan& plan, int tiles) const {
    for (int i = 0; i < plan.ring_units * plan.unit_slots; ++i) full[i].init(1);
    for (int i = 0; i < plan.ring_units; ++i) empty[i].init(kProductWarps);
    squared->init(1);
    received->init(1);
    fence_barrier_init();
    squared->arrive_and_expect(plan.received_at(tiles) - plan.squares_at());
  }
};

// One thread: copies this block's part of the weights of all units into the ring.
template <typename T>
__device__ void fill_ring(const SmallBatchWork<T>& work,
                          const SmallBatchShared& shared,
                          int cluster,
                          int rank) {
  const SmallBatchPlan& plan = work.plan;
  const uint64_t policy = evict_first();
  const int units = count_units(work, cluster);
  const int slots = plan.ring_units * plan.unit_slots;
  const int64_t row_bytes = static_cast<int64_t>(plan.pieces) * kPieceBytes;
  const int begin = min(rank * plan.steps * kStepBytes, plan.pieces * kPieceBytes);
  const int bytes = min(plan.steps * kStepBytes, plan.pieces * kPieceBytes - begin);
  int ring_unit = 0;
  int parity = 1;
  int landed = 0;  // the oldest slot whose copies may be on their way
  int landed_parity = 0;
  int on_their_way = 0;
  for (int index = 0; index < units; ++index) {
    const RowUnit unit = unit_at(work, cluster, index);
    const auto* from =
        reinterpret_cast<const unsigned char*>(work.args.matrices[unit.matrix].weight) +
        unit.row * row_bytes + begin;
    unsigned char* to = shared.ring + ring_unit * plan.unit_bytes;
    CopyBarrier* full = shared.full + ring_unit * plan.unit_slots;
    shared.empty[ring_unit].wait(parity);
    if (++ring_unit == plan.ring_units) {
      ring_unit = 0;
      parity ^= 1;
    }
    for (int row = 0; row < kUnitRows; row += plan.slot_rows, ++full) {
      if (on_their_way == plan.slots_in_flight) {
        shared.full[landed].wait(landed_parity);
        if (++landed == slots) {
          landed = 0;
          landed_parity ^= 1;
        }
      } else {
        ++on_their_way;
      }
      const int rows = min(unit.rows - row, plan.slot_rows);
      if (rows <= 0 || bytes == 0) {
        full->arrive();
        continue;
      }
      full->arrive_and_expect(rows * bytes);
      if (plan.is_packed) {
        copy_bulk(to + row * plan.pitch, from + row * row_bytes, rows * bytes, full, policy);
        continue;
      }
      for (int i = row; i < row + rows; ++i) {
        copy_bulk(to + i * plan.pitch, from + i * row_bytes, bytes, full, policy);
      }
    }
  }
}
#endif

}  // namespace mistral_ext::kernels::cuda
