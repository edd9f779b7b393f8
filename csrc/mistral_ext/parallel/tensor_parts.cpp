#include "mistral_ext/parallel/tensor_parts.h"

#include <fmt/ranges.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::parallel {

TensorParts::TensorParts(
    Collective collective, const char* argument, const DenseTensor& whole, Elements part, int size)
    : counts_(size, part.count) {
  const auto found = whole.elements();
  MISTRAL_EXT_CHECK(found.dtype == part.dtype && found.count == part.count * size,
                    "{}: {} must have {} {} elements, {} for each rank, got {} {} elements",
                    name_of(collective),
                    argument,
                    part.count * size,
                    c10::toString(part.dtype),
                    part.count,
                    found.count,
                    c10::toString(found.dtype));
  find_starts(whole);
}

TensorParts::TensorParts(Collective collective,
                         const char* argument,
                         const DenseTensor& whole,
                         const std::vector<int64_t>& splits,
                         int size) {
  const int64_t rows = whole.sizes().empty() ? 1 : whole.sizes()[0];
  const int64_t row = rows == 0 ? 0 : whole.elements().count / rows;
  if (splits.empty()) {
    MISTRAL_EXT_CHECK(rows % size == 0,
                      "{}: {} must have a number of rows that {} ranks divide, got {}",
                      name_of(collective),
                      argument,
                      size,
                      rows);
    counts_.assign(size, rows / size * row);
  } else {
    bool fits = static_cast<int64_t>(splits.size()) == size;
    int64_t left = rows;
    for (const auto split : splits) {
      fits = fits && split >= 0 && split <= left;
      if (!fits) break;
      left -= split;
      counts_.push_back(split * row);
    }
    MISTRAL_EXT_CHECK(fits && left == 0,
                      "{}: {} split sizes must be {} numbers of rows that make up all {}, got [{}]",
                      name_of(collective),
                      argument,
                      size,
                      rows,
                      fmt::join(splits, ", "));
  }
  find_starts(whole);
}

void TensorParts::find_starts(const DenseTensor& whole) {
  auto* start = static_cast<std::byte*>(whole.data());
  for (const auto count : counts_) {
    data_.push_back(start);
    start += count * whole.elements().item();
  }
}

}  // namespace mistral_ext::parallel
