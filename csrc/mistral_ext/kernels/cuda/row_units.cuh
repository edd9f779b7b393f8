#pragma once

// How workers, blocks or clusters, divide the rows of some matrices: worker i of n takes groups of
// rows i, i + n, ..., and of each group the rows of one matrix at a time, a unit.

#include "mistral_ext/kernels/cuda/linear_few_rows.h"

namespace mistral_ext::kernels::cuda {

// Rows of one matrix.
struct RowUnit {
  int matrix;
  int64_t row;
  int rows;
};

template <typename Plan>
__device__ int count_row_units(const Plan& plan, int worker, int workers) {
  const int groups = plan.groups_before[kFewMatrices];
  return (groups - worker + workers - 1) / workers * plan.units_a_group;
}

// The worker's.
template <int kUnitRows, typename T, typename Plan>
__device__ RowUnit
row_unit_at(const LinearFewRows<T>& args, const Plan& plan, int worker, int workers, int index) {
  int group = worker + (index >> (plan.units_a_group - 1)) * workers;
  RowUnit unit;
  if (plan.units_a_group == 2) {
    unit.matrix = index % 2;
  } else {
    unit.matrix = 0;
    while (group >= plan.groups_before[unit.matrix + 1]) ++unit.matrix;
    group -= plan.groups_before[unit.matrix];
  }
  unit.row = static_cast<int64_t>(group) * kUnitRows;
  const int64_t rows = args.matrices[unit.matrix].out_features - unit.row;
  unit.rows = static_cast<int>(min(rows, static_cast<int64_t>(kUnitRows)));
  return unit;
}

}  // namespace mistral_ext::kernels::cuda
