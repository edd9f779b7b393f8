#include "mistral_ext/generation/exponential_draws.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <vector>

namespace mistral_ext::generation {
namespace {

TEST(ExponentialDraws, AreThoseOfTheWholeTensorAndLeaveTheGeneratorWhereItWouldBe) {
  auto whole = at::detail::createCPUGenerator(3);
  auto few = whole.clone();
  ExponentialDraws draws;
  // Counts below, at and above the generator's block of 312 variates, one call after another.
  for (const int64_t count : {1, 5, 311, 312, 313, 1000, 49152}) {
    const auto expected = torch::empty({count}).exponential_(1.0, whole);
    const std::vector<int64_t> positions =
        count < 5 ? std::vector<int64_t>{0}
                  : std::vector<int64_t>{0, 1, count / 2, count - 2, count - 1};
    std::vector<float> drawn(positions.size());
    draws.draw(few, count, positions, drawn.data());
    for (size_t i = 0; i < positions.size(); ++i) {
      EXPECT_EQ(drawn[i], expected[positions[i]].item<float>());
    }
    EXPECT_TRUE(torch::equal(few.get_state(), whole.get_state())) << count;
  }
}

TEST(ExponentialDraws, OfNoPositionStillPassOverTheVariates) {
  auto whole = at::detail::createCPUGenerator(3);
  auto few = whole.clone();
  torch::empty({777}).exponential_(1.0, whole);
  ExponentialDraws().draw(few, 777, {}, nullptr);
  EXPECT_TRUE(torch::equal(few.get_state(), whole.get_state()));
}

TEST(ExponentialDraws, ComeFromTheDefaultGeneratorWhereNoneIsGiven) {
  torch::manual_seed(9);
  const auto expected = torch::empty({40}).exponential_();
  torch::manual_seed(9);
  float drawn = 0.0f;
  ExponentialDraws().draw(std::nullopt, 40, std::vector<int64_t>{33}, &drawn);
  EXPECT_EQ(drawn, expected[33].item<float>());
}

}  // namespace
}  // namespace mistral_ext::generation
