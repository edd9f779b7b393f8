#include "mistral_ext/ops/kv_cache_update.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace mistral_ext::ops {
namespace {

TEST(KvCacheUpdate, WrapsAroundTheRing) {
  const auto key_cache = torch::zeros({1, 1, 4, 1});
  const auto value_cache = torch::zeros({1, 1, 4, 1});
  const auto tokens = torch::tensor({1.0f, 2.0f, 3.0f}).view({1, 3, 1, 1});
  kv_cache_update_(key_cache, value_cache, tokens, tokens.mul(10), 6);
  EXPECT_TRUE(torch::equal(key_cache.flatten(), torch::tensor({3.0f, 0.0f, 1.0f, 2.0f})));
  EXPECT_TRUE(torch::equal(value_cache, key_cache.mul(10)));
}

TEST(KvCacheUpdate, GradientOfAnOverwrittenSlotGoesToItsToken) {
  const auto cache = torch::ones({1, 2, 4, 3}, torch::requires_grad());
  const auto tokens = torch::zeros({1, 1, 2, 3}, torch::requires_grad());
  const auto key_cache = cache.clone();
  const auto value_cache = cache.detach().clone();
  kv_cache_update_(key_cache, value_cache, tokens, tokens.detach(), 2);
  key_cache.sum().backward();
  EXPECT_TRUE(torch::equal(tokens.grad(), torch::ones_like(tokens)));
  EXPECT_TRUE(cache.grad().select(2, 2).eq(0).all().item<bool>());
  EXPECT_EQ(cache.grad().sum().item<float>(), 18.0f);
}

TEST(KvCacheUpdate, RefusesMoreTokensThanSlots) {
  const auto cache = torch::zeros({1, 2, 4, 3});
  const auto tokens = torch::zeros({1, 5, 2, 3});
  try {
    kv_cache_update_(cache, cache.clone(), tokens, tokens, 0);
    FAIL() << "no error";
  } catch (const c10::ValueError& error) {
    EXPECT_STREQ(error.what_without_backtrace(),
                 "kv_cache_update_: key must have at most the cache's capacity 4 of tokens, got 5");
  }
}

}  // namespace
}  // namespace mistral_ext::ops
