#include "mistral_ext/parallel/shard_spec.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "mistral_ext/models/parameter_shapes.h"
#include "mistral_ext/models/parameter_shard.h"
#include "models/tiny_model.h"

namespace mistral_ext::parallel {
namespace {

using models::tiny_config;

std::string refusal(const MistralConfig& config, int64_t ranks) {
  try {
    check_rank_count(config, ranks);
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

MistralConfig config_of(int64_t heads, int64_t kv_heads) {
  auto config = tiny_config();
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.vocab_size = 96;
  config.intermediate_size = 48;
  return config;
}

TEST(ShardSpec, OneRankHoldsEverything) {
  const Context one;
  EXPECT_TRUE(ShardSpec::column_parallel(one).is_whole());
  EXPECT_TRUE(ShardSpec::row_parallel(one).is_whole());
  EXPECT_TRUE(ShardSpec::key_value_heads(one, 2).is_whole());
  EXPECT_EQ(ShardSpec::column_parallel(one).part_of({6, 4}), (std::vector<int64_t>{6, 4}));
}

TEST(ShardSpec, APartAndItsWholeAreEachOthers) {
  const ShardSpec rows{.dim = 0, .index = 1, .count = 3};
  EXPECT_EQ(rows.part_of({6, 4}), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(rows.whole_of({2, 4}), (std::vector<int64_t>{6, 4}));
  const ShardSpec columns{.dim = 1, .index = 0, .count = 2};
  EXPECT_EQ(columns.part_of({6, 4}), (std::vector<int64_t>{6, 2}));
  EXPECT_EQ(columns.whole_of({6, 2}), (std::vector<int64_t>{6, 4}));
}

TEST(CheckRankCount, NamesTheCountsThatWork) {
  const auto config = config_of(8, 2);
  for (const int64_t ranks : {1, 2, 4, 8}) EXPECT_EQ(refusal(config, ranks), "") << ranks;
  EXPECT_NE(refusal(config, 3).find("1, 2, 4, 8 work, got 3"), std::string::npos)
      << refusal(config, 3);
  EXPECT_NE(refusal(config, 16).find("got 16"), std::string::npos);
  // Neither divides 6 heads of keys nor is a multiple of them.
  EXPECT_NE(refusal(config_of(12, 6), 4).find("1, 2, 3, 6, 12 work, got 4"), std::string::npos)
      << refusal(config_of(12, 6), 4);
}

TEST(CheckRankCount, RefusesSizesThatDoNotDivide) {
  auto config = config_of(8, 2);
  config.vocab_size = 97;
  EXPECT_NE(refusal(config, 2).find("1 work, got 2"), std::string::npos);
  config = config_of(8, 2);
  config.intermediate_size = 49;
  EXPECT_NE(refusal(config, 2).find("1 work, got 2"), std::string::npos);
}

TEST(Context, RefusesANameThatIsNoGroups) {
  EXPECT_THROW(Context("nobody's group"), c10::ValueError);
  EXPECT_THROW(Context(c10::intrusive_ptr<c10d::ProcessGroup>()), c10::ValueError);
}

}  // namespace
}  // namespace mistral_ext::parallel
