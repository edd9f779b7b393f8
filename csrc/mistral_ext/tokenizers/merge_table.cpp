#include "mistral_ext/tokenizers/merge_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <queue>
#include <tuple>

namespace mistral_ext::tokenizers {
namespace {

constexpr uint64_t kFree = ~uint64_t{0};
// Up to here going through all neighbours again costs less than a queue of them.
constexpr size_t kFew = 48;

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(size_t merges)
    : slots_(std::bit_ceil(std::max<size_t>(2, merges * 2)), Slot{kFree, {}}) {}

size_t MergeTable::slot(uint64_t pair) const {
  const auto mask = slots_.size() - 1;
  auto hash = pair * 0x9E3779B97F4A7C15U;
  hash ^= hash >> 32;
  auto at = hash & mask;
  while (slots_[at].pair != pair && slots_[at].pair != kFree) at = (at + 1) & mask;
  return at;
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const auto pair = pair_of(left, right);
  slots_[slot(pair)] = {pair, merge};
}

MergeTable::Merge MergeTable::find(int32_t left, int32_t right) const {
  return slots_[slot(pair_of(left, right))].merge;
}

void MergeTable::apply(std::vector<int32_t>& ids) const {
  if (ids.size() < 2) return;
  ids.size() <= kFew ? apply_to_few(ids) : apply_to_many(ids);
}

void MergeTable::apply_to_few(std::vector<int32_t>& ids) const {
  constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();
  std::array<Merge, kFew> merges;  // of each with the next
  auto count = ids.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(ids[i], ids[i + 1]);
  while (count > 1) {
    auto lowest = kNever;
    size_t at = 0;
    for (size_t i = 0; i + 1 < count; ++i) {
      const auto rank = static_cast<uint32_t>(merges[i].rank);  // none is the highest
      if (rank < lowest) {
        lowest = rank;
        at = i;
      }
    }
    if (lowest == kNever) break;
    ids[at] = merges[at].id;
    std::copy(ids.begin() + static_cast<ptrdiff_t>(at) + 2,
              ids.begin() + static_cast<ptrdiff_t>(count),
              ids.begin() + static_cast<ptrdiff_t>(at) + 1);
    std::copy(merges.begin() + at + 1, merges.begin() + count - 1, merges.begin() + at);
    --count;
    if (at > 0) merges[at - 1] = find(ids[at - 1], ids[at]);
    if (at + 1 < count) merges[at] = find(ids[at], ids[at + 1]);
  }
  ids.resize(count);
}

void MergeTable::apply_to_many(std::vector<int32_t>& ids) const {
  struct Candidate {
    int32_t rank;
    int32_t id;
    size_t at;
    bool operator>(const Candidate& other) const {
      return std::tie(rank, at) > std::tie(other.rank, other.at);
    }
  };
  constexpr size_t kEnd = std::numeric_limits<size_t>::max();
  constexpr int32_t kGone = -2;
  struct Neighbours {
    size_t before;
    size_t after;
  };
  const auto count = ids.size();
  std::vector<Neighbours> links(count);
  std::vector<Candidate> candidates;
  candidates.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    links[i] = {i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
    if (i + 1 == count) break;
    const auto merge = find(ids[i], ids[i + 1]);
    if (merge.rank >= 0) candidates.push_back({merge.rank, merge.id, i});
  }
  std::priority_queue queue(std::greater<>(), std::move(candidates));
  const auto consider = [&](size_t left, size_t right) {
    const auto merge = find(ids[left], ids[right]);
    if (merge.rank >= 0) queue.push({merge.rank, merge.id, left});
  };
  while (!queue.empty()) {
    const auto [rank, id, at] = queue.top();
    queue.pop();
    // Entries of neighbours that have changed since are passed over.
    const auto right = links[at].after;
    if (ids[at] == kGone || right == kEnd || find(ids[at], ids[right]).id != id) continue;
    ids[at] = id;
    ids[right] = kGone;
    links[at].after = links[right].after;
    if (links[at].after != kEnd) links[links[at].after].before = at;
    if (links[at].before != kEnd) consider(links[at].before, at);
    if (links[at].after != kEnd) consider(at, links[at].after);
  }
  std::erase(ids, kGone);
}

}  // namespace mistral_ext::tokenizers
