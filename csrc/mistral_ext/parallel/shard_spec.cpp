#include "mistral_ext/parallel/shard_spec.h"

#include <fmt/ranges.h>

#include "mistral_ext/core/check.h"

namespace mistral_ext::parallel {
namespace {

bool works(const MistralConfig& config, int64_t ranks) {
  const int64_t kv_heads = config.num_key_value_heads;
  return config.num_attention_heads % ranks == 0 && config.intermediate_size % ranks == 0 &&
         config.vocab_size % ranks == 0 && (kv_heads % ranks == 0 || ranks % kv_heads == 0);
}

}  // namespace

std::vector<int64_t> ShardSpec::part_of(c10::IntArrayRef whole) const {
  auto shape = whole.vec();
  if (!is_whole()) shape[dim] /= count;
  return shape;
}

std::vector<int64_t> ShardSpec::whole_of(c10::IntArrayRef part) const {
  auto shape = part.vec();
  if (!is_whole()) shape[dim] *= count;
  return shape;
}

ShardSpec ShardSpec::column_parallel(const Context& context) {
  return {.dim = 0, .index = context.rank(), .count = context.size()};
}

ShardSpec ShardSpec::row_parallel(const Context& context) {
  return {.dim = 1, .index = context.rank(), .count = context.size()};
}

ShardSpec ShardSpec::key_value_heads(const Context& context, int64_t heads) {
  const int64_t ranks = context.size();
  if (ranks <= heads) return column_parallel(context);
  const int64_t replicas = ranks / heads;
  return {.dim = 0, .index = context.rank() / replicas, .count = heads, .replicas = replicas};
}

void check_rank_count(const MistralConfig& config, int64_t ranks) {
  if (works(config, ranks)) return;
  std::vector<int64_t> counts;
  for (int64_t count = 1; count <= config.num_attention_heads; ++count) {
    if (works(config, count)) counts.push_back(count);
  }
  MISTRAL_EXT_CHECK(false,
                    "parallel: the number of ranks must divide the model's {} attention heads, "
                    "intermediate_size {} and vocab_size {}, and divide its {} key/value heads or "
                    "be a multiple of them: {} work, got {}",
                    config.num_attention_heads,
                    config.intermediate_size,
                    config.vocab_size,
                    config.num_key_value_heads,
                    fmt::join(counts, ", "),
                    ranks);
}

}  // namespace mistral_ext::parallel
