#include "mistral_ext/tokenizers/byte_pair_encoder.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <queue>
#include <tuple>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::tokenizers {
namespace {

// Up to here looking through all pairs is faster than keeping them in a heap.
constexpr size_t kFew = 64;
constexpr int32_t kNone = std::numeric_limits<int32_t>::max();

uint64_t hash(std::string_view bytes) {
  uint64_t h = bytes.size() * 0x9E3779B97F4A7C15u;
  while (!bytes.empty()) {
    uint64_t word = 0;
    const auto size = std::min<size_t>(bytes.size(), sizeof(word));
    std::memcpy(&word, bytes.data(), size);
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    bytes.remove_prefix(size);
  }
  return h;
}

}  // namespace

BytePairEncoder::BytePairEncoder(const std::vector<std::string>& tokens, const std::string& label) {
  MISTRAL_EXT_CHECK(tokens.size() >= 256 && tokens.size() < kNone,
                    "{}: vocab must have the 256 bytes and below 2^31 tokens, got {}",
                    label,
                    tokens.size());
  ranks_.assign(std::bit_ceil(2 * tokens.size()), -1);
  ends_.reserve(tokens.size());
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const auto& token = tokens[rank];
    MISTRAL_EXT_CHECK(
        rank >= 256 || (token.size() == 1 && static_cast<unsigned char>(token[0]) == rank),
        "{}: the token of rank {} must be the byte of that value, got {}",
        label,
        rank,
        io::printable(token));
    MISTRAL_EXT_CHECK(!token.empty(), "{}: the token of rank {} must have bytes", label, rank);
    auto& place = ranks_[slot(token)];
    MISTRAL_EXT_CHECK(place < 0,
                      "{}: tokens must differ, got {} at the ranks {} and {}",
                      label,
                      io::printable(token),
                      place,
                      rank);
    place = static_cast<int32_t>(rank);
    bytes_ += token;
    ends_.push_back(bytes_.size());
    longest_ = std::max(longest_, token.size());
  }
}

std::string_view BytePairEncoder::token(int64_t rank) const {
  const auto begin = rank == 0 ? 0 : ends_[rank - 1];
  return std::string_view(bytes_).substr(begin, ends_[rank] - begin);
}

// Where the token is in the table, or would be.
size_t BytePairEncoder::slot(std::string_view bytes) const {
  const auto mask = ranks_.size() - 1;
  auto i = hash(bytes) & mask;
  while (ranks_[i] >= 0 && token(ranks_[i]) != bytes) i = (i + 1) & mask;
  return i;
}

int32_t BytePairEncoder::rank(std::string_view bytes) const {
  return bytes.empty() || bytes.size() > longest_ ? -1 : ranks_[slot(bytes)];
}

void BytePairEncoder::encode(std::string_view bytes,
                             int64_t offset,
                             std::vector<int64_t>& ids) const {
  if (bytes.empty()) return;
  const auto whole = rank(bytes);
  if (whole >= 0) {
    ids.push_back(whole + offset);
  } else if (bytes.size() <= kFew) {
    merge_few(bytes, offset, ids);
  } else {
    merge_many(bytes, offset, ids);
  }
}

void BytePairEncoder::merge_few(std::string_view bytes,
                                int64_t offset,
                                std::vector<int64_t>& ids) const {
  std::array<uint8_t, kFew + 1> begin;   // of each part, and the end of the last
  std::array<int32_t, kFew + 1> merged;  // the rank of each part together with the next
  size_t parts = bytes.size();
  for (size_t i = 0; i <= parts; ++i) begin[i] = static_cast<uint8_t>(i);
  const auto pair_rank = [&](size_t i) {
    if (i + 2 > parts) return kNone;
    const auto found = rank(bytes.substr(begin[i], begin[i + 2] - begin[i]));
    return found < 0 ? kNone : found;
  };
  for (size_t i = 0; i < parts; ++i) merged[i] = pair_rank(i);
  while (true) {
    const auto i = std::min_element(merged.begin(), merged.begin() + parts) - merged.begin();
    if (merged[i] == kNone) break;
    std::copy(begin.begin() + i + 2, begin.begin() + parts + 1, begin.begin() + i + 1);
    std::copy(merged.begin() + i + 2, merged.begin() + parts, merged.begin() + i + 1);
    --parts;
    merged[i] = pair_rank(i);
    if (i > 0) merged[i - 1] = pair_rank(i - 1);
  }
  for (size_t i = 0; i < parts; ++i) {
    ids.push_back(rank(bytes.substr(begin[i], begin[i + 1] - begin[i])) + offset);
  }
}

void BytePairEncoder::merge_many(std::string_view bytes,
                                 int64_t offset,
                                 std::vector<int64_t>& ids) const {
  const auto size = bytes.size();
  // A part is named by where it begins; next[i] is where it ends, 0 where it is none any more.
  std::vector<size_t> next(size + 1);
  std::vector<size_t> previous(size + 1);
  for (size_t i = 0; i < size; ++i) {
    next[i] = i + 1;
    previous[i + 1] = i;
  }
  using Pair = std::tuple<int32_t, size_t, size_t>;  // rank, where it begins and ends
  std::vector<Pair> found;
  const auto find = [&](size_t i) {
    const auto middle = next[i];
    if (middle == size) return -1;
    return rank(bytes.substr(i, next[middle] - i));
  };
  for (size_t i = 0; i < size; ++i) {
    if (const auto r = find(i); r >= 0) found.emplace_back(r, i, next[next[i]]);
  }
  std::priority_queue<Pair, std::vector<Pair>, std::greater<>> pairs(std::greater<>(),
                                                                     std::move(found));
  while (!pairs.empty()) {
    const auto [_, i, end] = pairs.top();
    pairs.pop();
    const auto middle = next[i];
    // Another merge took one of the two.
    if (middle == 0 || middle == size || next[middle] != end) continue;
    next[i] = end;
    next[middle] = 0;
    previous[end] = i;
    if (const auto r = find(i); r >= 0) pairs.emplace(r, i, next[end]);
    if (i > 0) {
      const auto left = previous[i];
      if (const auto r = find(left); r >= 0) pairs.emplace(r, left, end);
    }
  }
  for (size_t i = 0; i < size; i = next[i]) {
    ids.push_back(rank(bytes.substr(i, next[i] - i)) + offset);
  }
}

}  // namespace mistral_ext::tokenizers
