#pragma once

#include <algorithm>
#include <cstdint>

#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/linear_few_rows.h"

namespace mistral_ext::kernels::cuda {

// Of linear_few_rows, shared by its kernels and their launch.

inline constexpr int kPieceBytes = 16;  // what a thread loads at once: 8 elements
inline constexpr int kProductThreads = 256;
inline constexpr int kProductWarps = kProductThreads / kWarp;
// A row is summed up in parts of as many pieces a thread: of 16 KB.
inline constexpr int kPartPieces = 4;
inline constexpr int kPartBytes = kPartPieces * kProductThreads * kPieceBytes;

inline constexpr int kRingBytes = 12 * kPartBytes;
inline constexpr int kMostSlots = 48;
// Sums that a block keeps before its threads finish and store them.
inline constexpr int kSetSums = 512;

// How a kernel goes through its work: a thread holds kPieces pieces of kRows rows of x at a time (a
// pass), and adds up kTasks parts of rows of W at a time.
template <int kRows, int kPieces>
struct FewRowsShape {
  static constexpr int kPassPieces = kPieces * kProductThreads;
  static constexpr int kParts = kPieces > kPartPieces ? kPieces / kPartPieces : 1;  // of a pass
  static constexpr int kPartLoads = kPieces / kParts;           // pieces of a part, a thread
  static constexpr int kTasks = kRows * kPieces >= 32 ? 2 : 4;  // less, where x takes the registers
  static constexpr int kUnitRows = kTasks / kParts;
  // Where a thread holds less than a part, the row is no longer than that.
  static constexpr int kMostParts =
      kPieces < kPartPieces ? 1 : kFewRowsMostFeatures * 2 / kPartBytes;
  static_assert(2 * kUnitRows * kMostParts * kRows <= kSetSums, "a group's sums fit");
};

// A block takes groups of rows, `blocks` apart, and of each group the rows of one matrix at a time
// (a unit): with kSwiGlu two, else one. A set is as many units as its sums have room for. Sum
// (row * parts + part) * kRows + m of a unit is that of its row `row` with row m of x.
struct FewRowsPlan {
  int pieces;         // of a row
  int parts;          // of a row
  int units_a_group;  // 2 with kSwiGlu
  int unit_sums;
  int set_units;                        // whole groups
  int groups_before[kFewMatrices + 1];  // those of the matrices ahead; then all
  int blocks;
  // Of the ring: a slot has rows that are whole, or a part of one.
  int slot_rows;  // 2 to the power of slot_shift
  int slot_shift;
  int slot_bytes;
  int unit_slots;  // of a unit, in a pass
  int ring_units;  // that there is room for
  int slots_in_flight;
  int zero;  // which the compiler does not know
};

template <typename Shape, int kRows, typename T>
FewRowsPlan plan_few_rows(const LinearFewRows<T>& args, int most_blocks, int bytes_in_flight) {
  const int64_t row_bytes = args.in_features * static_cast<int64_t>(sizeof(T));
  const bool is_pair = args.epilogue == LinearEpilogue::kSwiGlu;
  const int matrices = is_pair ? 1 : args.count;

  FewRowsPlan plan = {};
  plan.pieces = static_cast<int>(row_bytes / kPieceBytes);
  plan.parts = static_cast<int>(ceil_div(row_bytes, kPartBytes));
  plan.units_a_group = is_pair ? 2 : 1;
  plan.unit_sums = Shape::kUnitRows * plan.parts * kRows;
  plan.set_units =
      std::max(1, kSetSums / (plan.unit_sums * plan.units_a_group)) * plan.units_a_group;
  int64_t groups = 0;
  for (int i = 0; i < kFewMatrices; ++i) {
    if (i < matrices) groups += ceil_div(args.matrices[i].out_features, Shape::kUnitRows);
    plan.groups_before[i + 1] = static_cast<int>(groups);
  }
  // Blocks that all have the same to do, or one group less.
  plan.blocks = static_cast<int>(ceil_div(groups, ceil_div(groups, most_blocks)));

  plan.slot_rows = 1;
  while (2 * plan.slot_rows <= Shape::kUnitRows && 2 * plan.slot_rows * row_bytes <= kPartBytes) {
    plan.slot_rows *= 2;
    ++plan.slot_shift;
  }
  plan.slot_bytes = static_cast<int>(
      std::min<int64_t>(ceil_div(plan.slot_rows * row_bytes, 128) * 128, kPartBytes));
  plan.unit_slots = Shape::kTasks / plan.slot_rows;
  plan.ring_units = std::min(kRingBytes / plan.slot_bytes, kMostSlots) / plan.unit_slots;
  plan.slots_in_flight =
      std::clamp(bytes_in_flight / plan.slot_bytes, 1, plan.ring_units * plan.unit_slots);
  return plan;
}

}  // namespace mistral_ext::kernels::cuda
