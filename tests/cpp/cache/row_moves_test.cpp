#include "mistral_ext/cache/row_moves.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "mistral_ext/cache/kv_cache_layer.h"

namespace mistral_ext::cache {
namespace {

constexpr int64_t kRows = 5;

std::vector<int64_t> random_sources() {
  const auto sources = torch::randint(0, kRows, {kRows}, torch::kLong);
  return {sources.data_ptr<int64_t>(), sources.data_ptr<int64_t>() + kRows};
}

// A layer that has seen `tokens`, of which `window` slots are kept, and the tokens it was given.
KVCacheLayer filled_layer(int64_t window, int64_t tokens) {
  KVCacheLayer layer(window);
  for (int64_t i = 0; i < tokens; ++i) {
    layer.update(torch::randn({kRows, 1, 2, 4}), torch::randn({kRows, 1, 2, 4}));
  }
  return layer;
}

TEST(RowMoves, MakeEveryRowWhatItsSourceWas) {
  torch::manual_seed(0);
  for (int64_t trial = 0; trial < 200; ++trial) {
    const auto sources = trial == 0 ? std::vector<int64_t>{1, 2, 0, 4, 3} : random_sources();
    std::vector<int64_t> rows = {0, 1, 2, 3, 4};
    int64_t scratch = -1;
    int64_t copied = 0;
    for (const auto& move : plan_row_moves(sources)) {
      const int64_t value = move.from == kScratchRow ? scratch : rows[move.from];
      (move.to == kScratchRow ? scratch : rows[move.to]) = value;
      if (move.to != kScratchRow) ++copied;
    }
    EXPECT_EQ(rows, sources);
    int64_t moved = 0;
    for (int64_t i = 0; i < kRows; ++i) moved += sources[i] != i ? 1 : 0;
    EXPECT_EQ(copied, moved);
  }
}

TEST(RowMoves, OfRowsThatStayAreNone) {
  EXPECT_TRUE(plan_row_moves(std::vector<int64_t>{0, 1, 2}).empty());
}

TEST(RowMoves, RefuseASourceThatIsNoRow) {
  EXPECT_THROW(plan_row_moves(std::vector<int64_t>{0, 2}), c10::ValueError);
  EXPECT_THROW(plan_row_moves(std::vector<int64_t>{-1, 0}), c10::ValueError);
}

TEST(RowMoves, AreSelectedRowsInAGrowingBufferAndInARing) {
  torch::manual_seed(0);
  for (const int64_t window : {0, 4}) {
    for (const int64_t tokens : {1, 3, 4, 6, 9}) {
      auto layer = filled_layer(window, tokens);
      for (int64_t trial = 0; trial < 10; ++trial) {
        const auto sources = random_sources();
        const auto indices = torch::tensor(sources, torch::kLong);
        const auto keys = layer.keys().index_select(0, indices);
        const auto values = layer.values().index_select(0, indices);
        layer.select_rows(indices);
        EXPECT_TRUE(torch::equal(layer.keys(), keys));
        EXPECT_TRUE(torch::equal(layer.values(), values));
      }
    }
  }
}

TEST(RowMoves, CopyNoTokenBeforeTheFirst) {
  torch::manual_seed(0);
  for (const int64_t window : {0, 5}) {
    for (const int64_t first : {0, 2, 5, 7, 8}) {
      auto layer = filled_layer(window, 8);
      const auto before = layer.keys().clone();
      layer.move_rows(std::vector<RowMove>{{1, 3, first}});
      const auto now = layer.keys();
      for (int64_t i = 0; i < before.size(2); ++i) {
        const int64_t token = 8 - before.size(2) + i;
        const auto expected = before.select(0, token < first ? 1 : 3).select(1, i);
        EXPECT_TRUE(torch::equal(now.select(0, 1).select(1, i), expected));
      }
    }
  }
}

TEST(RowMoves, LeaveTensorsThatTheCallerLentUntouched) {
  const auto keys = torch::randn({2, 1, 3, 4});
  const auto before = keys.clone();
  KVCacheLayer layer(0);
  layer.assign(keys, keys, 3);
  layer.select_rows(torch::tensor({1, 1}));
  EXPECT_TRUE(torch::equal(keys, before));
  EXPECT_TRUE(torch::equal(layer.keys()[0], before[1]));
}

TEST(RowMoves, KeepTheGraphThatHangsOnARow) {
  const auto keys = torch::randn({2, 3, 1, 4}, torch::requires_grad());
  KVCacheLayer layer(0);
  layer.update(keys, keys, /*differentiable=*/true);
  layer.select_rows(torch::tensor({1, 1}));
  layer.keys().sum().backward();
  EXPECT_EQ(keys.grad()[0].abs().sum().item<float>(), 0.0f);
  EXPECT_TRUE(keys.grad()[1].eq(2).all().item<bool>());
}

TEST(RowMoves, ThatDoNotMoveKeepTheBuffer) {
  auto layer = filled_layer(0, 3);
  const void* const buffer = layer.keys().data_ptr();
  layer.select_rows(torch::arange(kRows));
  EXPECT_EQ(layer.keys().data_ptr(), buffer);
}

}  // namespace
}  // namespace mistral_ext::cache
