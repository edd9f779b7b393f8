#pragma once

#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <vector>

#include "mistral_ext/core/config.h"
#include "mistral_ext/parallel/context.h"

namespace mistral_ext::parallel {

// Which part of a weight a rank holds: of `count` equal parts along `dim` the one at `index`.
// `replicas` ranks hold the same part: all of them where a weight is whole, several where there are
// more ranks than key/value heads.
struct ShardSpec {
  int64_t dim = 0;
  int64_t index = 0;
  int64_t count = 1;
  int64_t replicas = 1;

  bool is_whole() const { return count == 1; }

  // The shape of the part, and of the whole that it is part of.
  std::vector<int64_t> part_of(c10::IntArrayRef whole) const;
  std::vector<int64_t> whole_of(c10::IntArrayRef part) const;

  // Of weights [out_features, in_features]: outputs, or inputs, by rank.
  static ShardSpec column_parallel(const Context& context);
  static ShardSpec row_parallel(const Context& context);
  // Of the key and value projections: each head on one rank, or on several.
  static ShardSpec key_value_heads(const Context& context, int64_t heads);
};

// Throws ValueError that names the counts which work, where a model of this configuration cannot be
// spread over so many ranks: they must divide num_attention_heads, intermediate_size and
// vocab_size, and divide num_key_value_heads or be a multiple of it.
void check_rank_count(const MistralConfig& config, int64_t ranks);

}  // namespace mistral_ext::parallel
