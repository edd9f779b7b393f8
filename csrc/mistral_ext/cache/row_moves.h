#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace mistral_ext::cache {

// Stands for one more row, which holds what the others overwrite.
inline constexpr int64_t kScratchRow = -1;

// Row `to` becomes what row `from` is. Only the tokens from first_token on are copied: before it
// the rows are known to be alike.
struct RowMove {
  int64_t to;
  int64_t from;
  int64_t first_token = 0;
};

// The moves, to be made one after another, by which each row i becomes what row sources[i] was
// before; rows that stay need none. Throws ValueError where a source is no row.
std::vector<RowMove> plan_row_moves(std::span<const int64_t> sources);

// Slots [slot, slot + count) of one row into the same of another; both [heads, slots, head_dim].
void copy_slots(const at::Tensor& from, const at::Tensor& to, int64_t slot, int64_t count);

}  // namespace mistral_ext::cache
