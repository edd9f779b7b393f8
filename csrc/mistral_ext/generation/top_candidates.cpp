#include "mistral_ext/generation/top_candidates.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace mistral_ext::generation {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int64_t kBlock = 64;
constexpr int64_t kLanes = 16;

// The maximum of n <= kBlock scores; `regular` becomes 0 where one is a NaN or +infinity. Lanes are
// spelled out because the compiler may not reorder a float maximum by itself.
float block_maximum(const float* block, int64_t n, int32_t& regular) {
  float maxima[kLanes];
  int32_t is_regular[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    maxima[lane] = kMinusInfinity;
    is_regular[lane] = 1;
  }
  const auto take = [&](const float* from, int64_t lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float score = from[lane];
      maxima[lane] = score > maxima[lane] ? score : maxima[lane];
      is_regular[lane] &= static_cast<int32_t>(score <= kLargest);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) take(block + i, kLanes);
  take(block + i, n - i);
  for (const int32_t lane : is_regular) regular &= lane;
  return *std::max_element(maxima, maxima + kLanes);
}

// The k-th highest of `values`, whose order is lost.
float kth_highest(std::vector<float>& values, int64_t k) {
  const auto kth = values.begin() + (k - 1);
  std::nth_element(values.begin(), kth, values.end(), std::greater<>());
  return *kth;
}

}  // namespace

bool TopCandidates::find_block_maxima(const float* row, int64_t n) {
  block_maxima_.clear();
  int32_t regular = 1;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    block_maxima_.push_back(block_maximum(row + begin, std::min(kBlock, n - begin), regular));
  }
  return regular != 0;
}

std::optional<int64_t> TopCandidates::argmax(const float* row, int64_t n) {
  if (!find_block_maxima(row, n)) return std::nullopt;
  const auto block = std::max_element(block_maxima_.begin(), block_maxima_.end());
  const int64_t begin = (block - block_maxima_.begin()) * kBlock;
  return std::find(row + begin, row + n, *block) - row;
}

// The k-th highest block maximum is a bound from below: k scores, one of each of those blocks, are
// at least as high. So only blocks whose maximum reaches it are read again.
bool TopCandidates::find(const float* row, int64_t n, int64_t k, std::vector<Candidate>& found) {
  found.clear();
  if (!find_block_maxima(row, n)) return false;
  float bound = kMinusInfinity;
  if (k <= std::ssize(block_maxima_)) {
    scratch_ = block_maxima_;
    bound = kth_highest(scratch_, k);
  }
  for (int64_t block = 0; block < std::ssize(block_maxima_); ++block) {
    if (block_maxima_[block] < bound) continue;
    const int64_t end = std::min((block + 1) * kBlock, n);
    for (int64_t i = block * kBlock; i < end; ++i) {
      if (row[i] >= bound && row[i] > kMinusInfinity) found.push_back({row[i], i});
    }
  }
  if (std::ssize(found) <= k) return true;
  scratch_.clear();
  for (const auto& candidate : found) scratch_.push_back(candidate.score);
  const float least = kth_highest(scratch_, k);
  std::erase_if(found, [least](const Candidate& candidate) { return candidate.score < least; });
  return true;
}

}  // namespace mistral_ext::generation
