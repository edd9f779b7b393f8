#include "mistral_ext/generation/sort_order.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include <bit>
#include <limits>
#include <utility>

namespace mistral_ext::generation {
namespace {

// Parts of at most so many elements are left to insertion.
constexpr int64_t kSmallPart = 16;

}  // namespace

// Musser 1997, "Introspective Sorting and Selection Algorithms", as the C++ library has it: the
// median of the second, the middle and the last element goes to the front and is the pivot; two
// fingers swap what stands on the wrong side, equals included. Returns where the upper part begins.
int64_t SortOrder::partition(int64_t first, int64_t last) {
  auto* const e = entries_.data();
  const auto less = [e](int64_t a, int64_t b) { return e[a].score < e[b].score; };
  const int64_t a = first + 1;
  const int64_t b = first + (last - first) / 2;
  const int64_t c = last - 1;
  int64_t median = 0;
  if (less(a, b)) {
    median = less(b, c) ? b : (less(a, c) ? c : a);
  } else {
    median = less(a, c) ? a : (less(b, c) ? c : b);
  }
  std::swap(e[first], e[median]);
  const float pivot = e[first].score;
  int64_t low = first + 1;
  int64_t high = last;
  while (true) {
    while (e[low].score < pivot) ++low;
    --high;
    while (pivot < e[high].score) --high;
    if (low >= high) return low;
    std::swap(e[low++], e[high]);
  }
}

void SortOrder::insert_sorted(int64_t first, int64_t last) {
  for (int64_t i = first + 1; i < last; ++i) {
    const Entry entry = entries_[i];
    int64_t place = i;
    for (; place > first && entry.score < entries_[place - 1].score; --place) {
      entries_[place] = entries_[place - 1];
    }
    entries_[place] = entry;
  }
}

bool SortOrder::follow(const float* row, int64_t n, int64_t begin, int64_t end) {
  entries_.resize(n);
  for (int64_t i = 0; i < n; ++i) entries_[i] = {row[i], static_cast<int32_t>(i)};
  struct Part {
    int64_t first;
    int64_t last;
    int64_t splits_left;
  };
  const int64_t logarithm = std::bit_width(static_cast<uint64_t>(n)) - 1;
  std::vector<Part> parts = {{0, n, 2 * logarithm}};
  while (!parts.empty()) {
    auto [first, last, splits_left] = parts.back();
    parts.pop_back();
    if (first >= end || last <= begin) continue;
    if (last - first <= kSmallPart) {
      insert_sorted(first, last);
      continue;
    }
    if (splits_left == 0) return false;
    const int64_t cut = partition(first, last);
    parts.push_back({first, cut, splits_left - 1});
    parts.push_back({cut, last, splits_left - 1});
  }
  return true;
}

// On rows with few values, of lengths on both sides of a small part's.
bool SortOrder::follows_sort() {
  auto generator = at::detail::createCPUGenerator(/*seed_val=*/1);
  SortOrder order;
  for (const int64_t n : {5, 17, 100, 1000, 20000}) {
    for (const int64_t values : {2, 40, 1000}) {
      const auto row = at::empty({1, n}, at::kFloat).random_(values, generator);
      const auto sorted = std::get<1>(at::sort(row, /*dim=*/-1, /*descending=*/false));
      const auto* index = sorted.const_data_ptr<int64_t>();
      if (!order.follow(row.const_data_ptr<float>(), n, 0, n)) return false;
      for (int64_t i = 0; i < n; ++i) {
        if (order.entries_[i].index != index[i]) return false;
      }
    }
  }
  return true;
}

bool SortOrder::is_known() {
  static const bool known = follows_sort();
  return known;
}

bool SortOrder::find(
    const float* row, int64_t n, int64_t begin, int64_t end, std::vector<int64_t>& indices) {
  if (n > std::numeric_limits<int32_t>::max() || !is_known() || !follow(row, n, begin, end)) {
    return false;
  }
  indices.clear();
  for (int64_t i = begin; i < end; ++i) indices.push_back(entries_[i].index);
  return true;
}

}  // namespace mistral_ext::generation
