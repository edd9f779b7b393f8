#include "mistral_ext/cache/row_moves.h"

#include <cstring>

#include "mistral_ext/core/check.h"

namespace mistral_ext::cache {

std::vector<RowMove> plan_row_moves(std::span<const int64_t> sources) {
  const int64_t rows = std::ssize(sources);
  std::vector<int64_t> readers(rows, 0);  // rows that still have to read this one
  std::vector<bool> waits(rows, false);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t source = sources[row];
    MISTRAL_EXT_CHECK(source >= 0 && source < rows,
                      "cache: a row to take must be in [0, {}), got {}",
                      rows,
                      source);
    if (source == row) continue;
    waits[row] = true;
    ++readers[source];
  }
  std::vector<RowMove> moves;
  std::vector<int64_t> ready;  // rows that nobody reads any more
  for (int64_t row = 0; row < rows; ++row) {
    if (waits[row] && readers[row] == 0) ready.push_back(row);
  }
  while (!ready.empty()) {
    const int64_t row = ready.back();
    const int64_t source = sources[row];
    ready.pop_back();
    moves.push_back({row, source});
    waits[row] = false;
    if (--readers[source] == 0 && waits[source]) ready.push_back(source);
  }
  // What still waits goes round in circles.
  for (int64_t first = 0; first < rows; ++first) {
    if (!waits[first]) continue;
    moves.push_back({kScratchRow, first});
    int64_t row = first;
    for (; sources[row] != first; row = sources[row]) {
      moves.push_back({row, sources[row]});
      waits[row] = false;
    }
    moves.push_back({row, kScratchRow});
    waits[row] = false;
  }
  return moves;
}

void copy_slots(const at::Tensor& from, const at::Tensor& to, int64_t slot, int64_t count) {
  if (count == 0) return;
  const auto source = from.narrow(1, slot, count);
  const auto target = to.narrow(1, slot, count);
  if (!to.is_cpu() || !to.is_contiguous() || !from.is_contiguous()) {
    target.copy_(source);
    return;
  }
  // Mostly a slot or two: at::copy_ would take longer to start than this to end.
  const auto* read = static_cast<const char*>(source.const_data_ptr());
  auto* write = static_cast<char*>(target.mutable_data_ptr());
  const size_t stride = to.stride(0) * to.element_size();
  const size_t bytes = count * to.stride(1) * to.element_size();
  for (int64_t head = 0; head < to.size(0); ++head) {
    std::memcpy(write + head * stride, read + head * stride, bytes);
  }
}

}  // namespace mistral_ext::cache
