#include <algorithm>

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/attention_backward.h"

namespace mistral_ext::kernels::cpu {
namespace {

// Rows of a unit: enough that packing a block of keys is small beside multiplying it, few enough
// that a prompt makes more units than there are cores. A multiple of the tile's rows.
constexpr int64_t kUnitRows = 192;

// Keys of a split at the least, and splits at the most.
constexpr int64_t kSplitKeys = 512;
constexpr int64_t kSplits = 32;

// Rows of a step of the backward pass over keys: their weights stay in the nearest cache.
constexpr int64_t kStepRows = 48;

// More rows and keys than whole tiles of any level add.
constexpr int64_t kTileSlack = 16;

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

AttentionPlan::AttentionPlan(const AttentionArgs& args)
    : batch(args.batch),
      kv_heads(args.kv_heads),
      query_len(args.query_len),
      key_len(args.key_len),
      block_queries(std::min(std::max<int64_t>(1, kUnitRows / args.group()),
                             std::max<int64_t>(1, query_len))),
      query_blocks(round_up(query_len, block_queries) / block_queries),
      split_keys(key_len),
      splits(1) {
  if (query_blocks == 1 && key_len > kSplitKeys) {
    split_keys = std::max(kSplitKeys, round_up((key_len + kSplits - 1) / kSplits, kAttentionKeys));
    splits = round_up(key_len, split_keys) / split_keys;
  }
}

AttentionUnit AttentionPlan::unit(int64_t index) const {
  AttentionUnit unit;
  const int64_t split = index % splits;
  index /= splits;
  unit.kv_head = index % kv_heads;
  index /= kv_heads;
  unit.batch = index % batch;
  const int64_t block = query_blocks - 1 - index / batch;
  unit.query_begin = block * block_queries;
  unit.query_end = std::min(unit.query_begin + block_queries, query_len);
  unit.key_begin = split * split_keys;
  unit.key_end = std::min(unit.key_begin + split_keys, key_len);
  return unit;
}

int64_t attention_forward_scratch(int64_t rows, int64_t head_dim) {
  const int64_t padded = attention_padded(head_dim);
  const int64_t padded_rows = rows + kTileSlack;
  return padded_rows * (2 * padded + 1 + 16) + 2 * kTileSlack * kAttentionKeys +
         2 * kAttentionKeys * padded + 64;
}

int64_t attention_step_queries(const AttentionArgs& args) {
  return std::max<int64_t>(1, kStepRows / args.group());
}

int64_t attention_backward_query_scratch(int64_t rows, int64_t head_dim) {
  const int64_t padded = attention_padded(head_dim);
  const int64_t padded_rows = rows + kTileSlack;
  return padded_rows * (3 * padded + 2) + 3 * kAttentionKeys * padded +
         2 * kTileSlack * (kAttentionKeys + kTileSlack) + 64;
}

int64_t attention_backward_key_scratch(const AttentionArgs& args) {
  const int64_t padded = attention_padded(args.head_dim);
  const int64_t padded_rows = attention_step_queries(args) * args.group() + kTileSlack;
  const int64_t padded_keys = kAttentionKeys + kTileSlack;
  return padded_rows * (2 * padded + 2 + 2 * padded_keys) +
         (2 * kAttentionKeys + 2 * padded_keys) * padded + 64;
}

}  // namespace mistral_ext::kernels::cpu
