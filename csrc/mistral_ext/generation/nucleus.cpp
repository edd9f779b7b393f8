#include "mistral_ext/generation/nucleus.h"

#include <ATen/ops/_softmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

namespace mistral_ext::generation {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Three digits make a key.
constexpr int kDigitBits = 11;
constexpr int kDigits = 3;
constexpr uint32_t kDigitMask = (1u << kDigitBits) - 1;
constexpr uint32_t kSign = 0x80000000u;

// Keys rise as the scores do.
uint32_t key_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

float score_of(uint32_t key) {
  return std::bit_cast<float>((key & kSign) != 0 ? key & ~kSign : ~key);
}

}  // namespace

// False where the row holds a NaN or +infinity.
bool Nucleus::sort_row(const float* row, int64_t n, float* sorted) {
  keys_.resize(n);
  other_keys_.resize(n);
  std::array<std::array<uint32_t, kDigitMask + 1>, kDigits> places = {};
  int32_t regular = 1;
  for (int64_t i = 0; i < n; ++i) {
    regular &= static_cast<int32_t>(row[i] <= kLargest);
    const uint32_t key = key_of(row[i]);
    keys_[i] = key;
    for (int digit = 0; digit < kDigits; ++digit) {
      ++places[digit][key >> (digit * kDigitBits) & kDigitMask];
    }
  }
  if (regular == 0) return false;
  for (int digit = 0; digit < kDigits; ++digit) {
    uint32_t begin = 0;
    for (auto& place : places[digit]) begin += std::exchange(place, begin);
    for (const uint32_t key : keys_) {
      other_keys_[places[digit][key >> (digit * kDigitBits) & kDigitMask]++] = key;
    }
    keys_.swap(other_keys_);
  }
  std::ranges::transform(keys_, sorted, score_of);
  return true;
}

// Of the scores that equal the lowest that stays, those among the first `removed` of the sorted
// row.
void Nucleus::find_removed_equals(const float* row,
                                  int64_t n,
                                  const float* sorted,
                                  int64_t removed) {
  const int64_t first = std::lower_bound(sorted, sorted + removed, sorted[removed]) - sorted;
  removed_equals_.clear();
  if (first == removed) return;
  if (!order_.find(row, n, first, removed, removed_equals_)) {
    const auto all = at::from_blob(const_cast<float*>(row), {1, n}, at::kFloat);
    const auto order = std::get<1>(at::sort(all, /*dim=*/-1, /*descending=*/false));
    const auto* index = order.const_data_ptr<int64_t>();
    removed_equals_.assign(index + first, index + removed);
  }
  std::ranges::sort(removed_equals_);
}

bool Nucleus::find(const at::Tensor& scores,
                   double top_p,
                   int64_t at_least,
                   std::vector<std::vector<Candidate>>& rows) {
  const int64_t batch = scores.size(0);
  const int64_t n = scores.size(1);
  if (!sorted_.defined() || sorted_.sizes() != scores.sizes()) {
    sorted_ = at::empty(scores.sizes(), at::kFloat);
    probabilities_ = at::empty(scores.sizes(), at::kFloat);
  }
  const auto* row = scores.const_data_ptr<float>();
  auto* sorted = sorted_.mutable_data_ptr<float>();
  for (int64_t i = 0; i < batch; ++i) {
    if (!sort_row(row + i * n, n, sorted + i * n)) return false;
    if (sorted[(i + 1) * n - 1] == kMinusInfinity) return false;
  }
  at::_softmax_out(probabilities_, sorted_, /*dim=*/-1, /*half_to_float=*/false);
  const auto most_removed = static_cast<float>(1.0 - top_p);
  const auto* probability = probabilities_.const_data_ptr<float>();
  rows.resize(batch);
  for (auto& kept : rows) {
    // Summed up in double, as at::cumsum does.
    double sum = 0.0;
    int64_t removed = 0;
    for (; removed < n - at_least; ++removed) {
      sum += probability[removed];
      if (static_cast<float>(sum) > most_removed) break;
    }
    find_removed_equals(row, n, sorted, removed);
    const float lowest = sorted[removed];
    kept.clear();
    auto removed_equal = removed_equals_.begin();
    for (int64_t i = 0; i < n; ++i) {
      if (row[i] < lowest) continue;
      if (removed_equal != removed_equals_.end() && *removed_equal == i) {
        ++removed_equal;
      } else {
        kept.push_back({row[i], i});
      }
    }
    row += n;
    sorted += n;
    probability += n;
  }
  return true;
}

}  // namespace mistral_ext::generation
