#include "mistral_ext/ops/rotary_embedding.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "ops/error_message.h"

namespace mistral_ext::ops {
namespace {

// Two positions: no turn, and a quarter turn of both pairs.
const at::Tensor& quarter_turns() {
  static const auto table = torch::tensor({{1.0f, 1.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 1.0f, 1.0f}});
  return table;
}

TEST(RotaryEmbedding, TurnsTheFirstHalfIntoTheSecond) {
  const auto x = torch::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({1, 1, 1, 4}).expand({1, 2, 1, 4});
  const auto [query, key] = rotary_embedding(x, x, torch::tensor({{0, 1}}), quarter_turns());
  const auto expected = torch::tensor({{1.0f, 2.0f, 3.0f, 4.0f}, {-3.0f, -4.0f, 1.0f, 2.0f}});
  EXPECT_TRUE(torch::equal(query.view({2, 4}), expected));
  EXPECT_TRUE(torch::equal(key, query));
}

TEST(RotaryEmbedding, KernelAndReferenceAgreeForwardAndBackward) {
  torch::manual_seed(0);
  const auto query = torch::randn({2, 5, 4, 34});
  const auto key = torch::randn({2, 5, 2, 34});
  const auto positions = torch::randint(20, {2, 5}, torch::kLong);
  const auto table = torch::randn({20, 34});
  const auto scale = torch::rand({1, 5});
  const auto near = [](const auto& got, const auto& want) {
    return torch::allclose(std::get<0>(got), std::get<0>(want), 1e-5, 1e-6) &&
           torch::allclose(std::get<1>(got), std::get<1>(want), 1e-5, 1e-6);
  };
  EXPECT_TRUE(near(rotary_embedding(query, key, positions, table, scale),
                   rotary_embedding_reference(query, key, positions, table, scale)));
  EXPECT_TRUE(near(rotary_embedding_backward(query, key, positions, table, scale),
                   rotary_embedding_backward_reference(query, key, positions, table, scale)));
}

TEST(RotaryEmbedding, RefusesAPositionOutsideTheTableInKernelAndReference) {
  const auto x = torch::ones({1, 1, 1, 4});
  const auto positions = torch::tensor({{2}});
  const std::string message = "rotary_embedding: positions must lie in [0, 2), got 2";
  EXPECT_EQ(error_message([&] { rotary_embedding(x, x, positions, quarter_turns()); }), message);
  EXPECT_EQ(error_message([&] { rotary_embedding_reference(x, x, positions, quarter_turns()); }),
            message);
}

}  // namespace
}  // namespace mistral_ext::ops
