#include "mistral_ext/cache/kv_cache.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace mistral_ext::cache {
namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kHeadDim = 4;

// Every element of token p is p.
at::Tensor tokens(int64_t first, int64_t count, int64_t batch = 1) {
  return torch::arange(first, first + count, torch::kFloat)
      .view({1, count, 1, 1})
      .expand({batch, count, kHeads, kHeadDim})
      .contiguous();
}

std::vector<int64_t> positions(const at::Tensor& x, int64_t sequence_dim) {
  if (x.numel() == 0) return {};
  const auto column = x.transpose(0, sequence_dim).reshape({x.size(sequence_dim), -1}).select(1, 0);
  std::vector<int64_t> result;
  for (int64_t i = 0; i < column.size(0); ++i) result.push_back(column[i].item<int64_t>());
  return result;
}

std::vector<int64_t> range(int64_t first, int64_t end) {
  std::vector<int64_t> result;
  for (int64_t i = first; i < end; ++i) result.push_back(i);
  return result;
}

// Feeds chunks and checks after each that what its queries see is right, whatever its slot order.
void feed(KVCacheLayer& layer, const std::vector<int64_t>& chunks, int64_t start = 0) {
  int64_t next = start;
  for (const int64_t count : chunks) {
    const auto extent = layer.extent(count);
    const auto seen = layer.update(tokens(next, count), tokens(next, count).neg());
    next += count;
    const int64_t first =
        layer.window() == 0 ? 0 : std::max<int64_t>(next - count - (layer.window() - 1), 0);
    EXPECT_EQ(extent.first_position, first);
    EXPECT_EQ(extent.length, next - first);
    const auto in_order = torch::roll(seen.key, {-extent.rotation}, {1});
    EXPECT_EQ(positions(in_order, 1), range(first, next));
    EXPECT_TRUE(torch::equal(seen.value, seen.key.neg()));
    EXPECT_EQ(layer.seen(), next);
  }
}

TEST(KVCacheLayer, ShowsAllKeysInOrderWithoutAWindow) {
  KVCacheLayer layer;
  feed(layer, {3, 1, 1, 70, 1, 200, 1});
  EXPECT_EQ(positions(layer.keys(), 2), range(0, 277));
}

TEST(KVCacheLayer, CountsTokensThatOthersWriteIntoItsSlots) {
  for (const int64_t window : {0, 5, 100}) {
    KVCacheLayer layer(window);
    feed(layer, {3});
    int64_t next = 3;
    for (const int64_t run : {1, 70, 2, 40}) {
      for (int64_t left = run; left > 0;) {
        const auto slots = layer.slots();
        ASSERT_GT(slots.room, 0);
        const int64_t count = std::min(left, slots.room);
        for (int64_t i = 0; i < count; ++i, ++next) {
          const int64_t slot = (slots.next + i) % slots.key.size(2);
          slots.key.select(2, slot).fill_(next);
          slots.value.select(2, slot).fill_(-next);
        }
        layer.appended(count);
        left -= count;
      }
      EXPECT_EQ(layer.seen(), next);
      feed(layer, {1, 2}, next);  // checks all that is visible
      next += 3;
    }
  }
}

TEST(KVCacheLayer, IsPlainWhereItsBuffersMayBeWrittenInPlace) {
  KVCacheLayer layer(5);
  EXPECT_FALSE(layer.is_plain());
  feed(layer, {3});
  EXPECT_TRUE(layer.is_plain());
  layer.record_past();
  EXPECT_FALSE(layer.is_plain());
}

TEST(KVCacheLayer, GrowsByDoubling) {
  KVCacheLayer layer;
  feed(layer, {64});
  EXPECT_EQ(layer.capacity(), 64);
  feed(layer, {1}, 64);
  EXPECT_EQ(layer.capacity(), 128);
}

TEST(KVCacheLayer, AppendingKeepsTheBufferWhileThereIsRoom) {
  KVCacheLayer layer;
  layer.reserve(100);
  feed(layer, {10});
  const void* before = layer.keys().data_ptr();
  feed(layer, {1, 40, 49}, 10);
  EXPECT_EQ(layer.keys().data_ptr(), before);
  EXPECT_EQ(layer.capacity(), 100);
}

class Window : public testing::TestWithParam<int64_t> {};

TEST_P(Window, ShowsEachChunkItsBandAndKeepsMemoryBounded) {
  const int64_t window = GetParam();
  const std::vector<std::vector<int64_t>> schedules = {
      std::vector<int64_t>(4 * window + 3, 1),
      {window - 1 > 0 ? window - 1 : 1, 1, 1, 1},
      {window, 1, 1},
      {window + 1, 1, 1},
      {2 * window, 1, 2, 1},
      {4 * window + 1, 3, 1, 1, window, 1},
      {1, 2, 3, 4, 5, 6, 1, 1},
  };
  for (const auto& chunks : schedules) {
    KVCacheLayer layer(window);
    feed(layer, chunks);
    EXPECT_LE(layer.capacity(), window);
    const int64_t kept = std::min(window - 1, layer.seen());
    EXPECT_EQ(positions(layer.keys(), 2), range(layer.seen() - kept, layer.seen()));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Window, testing::Values(1, 2, 3, 4, 7, 8, 64, 100));

TEST(KVCacheLayer, ConcatenatesWhereGradientsAreWanted) {
  KVCacheLayer layer(4);
  auto first = tokens(0, 3).requires_grad_();
  layer.update(first, first, /*differentiable=*/true);
  auto second = tokens(3, 2).requires_grad_();
  const auto seen = layer.update(second, second, /*differentiable=*/true);
  EXPECT_EQ(positions(seen.key.detach(), 1), range(0, 5));
  seen.key.sum().backward();
  EXPECT_TRUE(torch::equal(first.grad(), torch::ones_like(first)));
  EXPECT_TRUE(torch::equal(second.grad(), torch::ones_like(second)));
  EXPECT_EQ(positions(layer.keys().detach(), 2), range(2, 5));
}

TEST(KVCacheLayer, DoesNotWriteIntoABufferThatAGraphRefersTo) {
  KVCacheLayer layer;
  auto first = tokens(0, 2).requires_grad_();
  const auto seen = layer.update(first, first, /*differentiable=*/true);
  const torch::NoGradGuard no_grad;
  layer.update(tokens(2, 1), tokens(2, 1));
  EXPECT_EQ(positions(seen.key.detach(), 1), range(0, 2));
  EXPECT_EQ(positions(layer.keys(), 2), range(0, 3));
  EXPECT_FALSE(layer.requires_grad());
}

TEST(KVCacheLayer, DropsTheNewestTokens) {
  KVCacheLayer layer(8);
  feed(layer, {6});
  layer.drop_last(4);
  feed(layer, {1, 1}, 2);
  EXPECT_EQ(positions(layer.keys(), 2), range(0, 4));
}

TEST(KVCacheLayer, RefusesToDropWhatTheWindowHasOverwritten) {
  KVCacheLayer layer(4);
  feed(layer, {6});
  EXPECT_THROW(layer.drop_last(1), c10::Error);
  EXPECT_EQ(layer.seen(), 6);
}

TEST(KVCacheLayer, RollsBackUnderAWindowAfterRecordingThePast) {
  KVCacheLayer layer(4);
  feed(layer, {6});
  layer.record_past();
  layer.update(tokens(6, 3), tokens(6, 3));
  layer.drop_last(2);
  EXPECT_EQ(layer.seen(), 7);
  EXPECT_EQ(positions(layer.keys(), 2), range(4, 7));
}

TEST(KVCacheLayer, RefusesToDropMoreThanWasRecorded) {
  KVCacheLayer layer(4);
  feed(layer, {6});
  layer.record_past();
  layer.update(tokens(6, 2), tokens(6, 2));
  EXPECT_THROW(layer.drop_last(4), c10::Error);
  EXPECT_EQ(layer.seen(), 8);
}

TEST(KVCacheLayer, OverwritesAgainOnceThePastIsNoLongerRecorded) {
  KVCacheLayer layer(4);
  layer.record_past();
  layer.update(tokens(0, 9), tokens(0, 9).neg());
  EXPECT_EQ(positions(layer.keys(), 2), range(0, 9));
  layer.record_past(false);
  EXPECT_EQ(positions(layer.keys(), 2), range(6, 9));
  feed(layer, {1, 1, 1, 1, 2, 1}, 9);
  EXPECT_EQ(layer.capacity(), 4);
}

TEST(KVCacheLayer, KeepsOfWhatIsAssignedWhatTheWindowNeeds) {
  KVCacheLayer layer(4);
  const auto states = tokens(0, 7).transpose(1, 2).contiguous();
  layer.assign(states, states.neg(), 7);
  EXPECT_EQ(positions(layer.keys(), 2), range(4, 7));
  feed(layer, {1, 1, 3}, 7);
}

TEST(KVCacheLayer, WritesOutsideInferenceModeWhatWasMadeInIt) {
  for (const int64_t window : {0, 4}) {
    KVCacheLayer layer(window);
    {
      const c10::InferenceMode inference;
      layer.update(tokens(0, 5), tokens(0, 5));
    }
    const torch::NoGradGuard no_grad;
    layer.update(tokens(5, 1), tokens(5, 1));
    layer.update(tokens(6, 2), tokens(6, 2));
    EXPECT_EQ(layer.seen(), 8);
    EXPECT_EQ(positions(layer.keys(), 2), window == 0 ? range(0, 8) : range(5, 8));
  }
}

TEST(KVCacheLayer, SelectsAndRepeatsRows) {
  KVCacheLayer layer;
  const auto both = torch::cat({tokens(0, 2), tokens(10, 2)}, 0);
  layer.update(both, both);
  layer.select_rows(torch::tensor({1, 0, 1}));
  EXPECT_EQ(layer.batch_size(), 3);
  EXPECT_EQ(positions(layer.keys().narrow(0, 0, 1), 2), range(10, 12));
  layer.repeat_rows(2);
  EXPECT_EQ(layer.batch_size(), 6);
  EXPECT_EQ(positions(layer.keys().narrow(0, 2, 1), 2), range(0, 2));
}

TEST(KVCacheLayer, NamesWhatDoesNotFit) {
  KVCacheLayer layer;
  layer.update(tokens(0, 2), tokens(0, 2));
  const auto message = [&](const at::Tensor& x) -> std::string {
    try {
      layer.update(x, x);
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "no error";
  };
  EXPECT_EQ(message(tokens(2, 1, 3)), "cache: batch must be 1, got 3");
  EXPECT_EQ(message(tokens(2, 1).to(torch::kDouble)), "cache: dtype must be Float, got Double");
  EXPECT_EQ(message(tokens(2, 1).narrow(2, 0, 1)),
            "cache: heads and head_dim must be 2 and 4, got 1 and 4");
  EXPECT_EQ(layer.seen(), 2);
  KVCacheLayer empty;
  EXPECT_THROW(empty.update(tokens(0, 1), tokens(0, 1).to(torch::kDouble)), c10::ValueError);
  EXPECT_FALSE(empty.is_initialized());
  EXPECT_THROW(layer.repeat_rows(0), c10::ValueError);
}

TEST(KVCacheLayer, IsARingAgainAfterItsPastWasRecorded) {
  for (const bool empties : {false, true}) {
    KVCacheLayer layer(4);
    layer.record_past();
    layer.update(tokens(0, 9), tokens(0, 9).neg());
    if (empties) {
      layer.reset();
    } else {
      layer.drop_last(7);
    }
    layer.record_past(false);
    feed(layer, {1, 1, 1, 1, 1, 3, 1, 1}, empties ? 0 : 2);
    EXPECT_LE(layer.capacity(), 4);
  }
}

TEST(KVCacheLayer, AGraphOnEitherOfKeysAndValuesIsKept) {
  for (const bool on_key : {false, true}) {
    KVCacheLayer layer;
    const auto key = tokens(0, 3).requires_grad_(on_key);
    const auto value = tokens(0, 3).requires_grad_(!on_key);
    layer.update(key, value, /*differentiable=*/true);
    EXPECT_TRUE(layer.requires_grad());
  }
  KVCache cache(std::vector<int64_t>{0, 0});
  cache.layer(0).update(tokens(0, 3), tokens(0, 3));
  cache.layer(1).update(tokens(0, 3).requires_grad_(), tokens(0, 3), /*differentiable=*/true);
  EXPECT_TRUE(cache.requires_grad());
}

TEST(KVCacheLayer, TakesAnotherBatchAndDtypeOnceItIsEmpty) {
  KVCacheLayer layer;
  layer.update(tokens(0, 3), tokens(0, 3));
  layer.reset();
  layer.update(tokens(0, 2, 3).to(torch::kDouble), tokens(0, 2, 3).to(torch::kDouble));
  EXPECT_EQ(layer.batch_size(), 3);
  EXPECT_EQ(layer.keys().scalar_type(), torch::kDouble);
}

TEST(KVCacheLayer, KeepsItsOwnCopyOfWhatIsAssigned) {
  KVCacheLayer layer;
  const auto given = tokens(0, 5).transpose(1, 2).contiguous();
  layer.assign(given, given, 5);
  layer.drop_last(2);
  layer.update(tokens(7, 1), tokens(8, 1));
  EXPECT_EQ(positions(given, 2), range(0, 5));
  EXPECT_EQ(positions(layer.values(), 2), (std::vector<int64_t>{0, 1, 2, 8}));
  EXPECT_THROW(layer.assign(given, given, 9), c10::ValueError);  // four of nine are missing
}

TEST(KVCache, AClonesTokensAreItsOwn) {
  KVCache cache(std::vector<int64_t>{0, 4});
  for (int i = 0; i < 2; ++i) cache.layer(i).update(tokens(0, 3), tokens(0, 3));
  KVCache fork = cache.clone();
  for (int i = 0; i < 2; ++i) {
    fork.layer(i).update(tokens(9, 1), tokens(9, 1));
    cache.layer(i).update(tokens(3, 1), tokens(3, 1));
    EXPECT_EQ(positions(cache.layer(i).keys(), 2).back(), 3);
    EXPECT_EQ(positions(fork.layer(i).keys(), 2).back(), 9);
  }
}

TEST(KVCache, ResetsAndKeepsTheMemory) {
  KVCache cache(std::vector<int64_t>{0, 4});
  for (int i = 0; i < 2; ++i) cache.layer(i).update(tokens(0, 6), tokens(0, 6));
  const int64_t bytes = cache.nbytes();
  cache.reset();
  EXPECT_EQ(cache.seen(), 0);
  EXPECT_EQ(cache.nbytes(), bytes);
  for (int i = 0; i < 2; ++i) feed(cache.layer(i), {3, 3, 1});
}

TEST(KVCache, LeavesEveryLayerAsItWasWhereOneCannotDrop) {
  KVCache cache(std::vector<int64_t>{0, 4});
  for (int i = 0; i < 2; ++i) cache.layer(i).update(tokens(0, 6), tokens(0, 6));
  EXPECT_THROW(cache.drop_last(1), c10::Error);
  EXPECT_EQ(cache.layer(0).seen(), 6);
}

}  // namespace
}  // namespace mistral_ext::cache
