#include "mistral_ext/generation/top_candidates.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <limits>

namespace mistral_ext::generation {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rounded to quarters, so that there are many ties.
torch::Tensor scores_with_ties(int64_t n) { return torch::randn({n}).mul(3 * 4).round().div(4); }

TEST(TopCandidates, FindsWhatTopkKeepsWithEverythingThatTies) {
  torch::manual_seed(0);
  TopCandidates top;
  std::vector<Candidate> found;
  for (const int64_t n : {1, 63, 64, 65, 1000, 9001}) {
    for (const int64_t k : {1, 2, 7, 50, 1000, 9001}) {
      if (k > n) continue;
      const auto row = scores_with_ties(n);
      const auto least = std::get<0>(row.topk(k))[k - 1];
      const auto expected = row.ge(least).nonzero().squeeze(1);
      ASSERT_TRUE(top.find(row.data_ptr<float>(), n, k, found));
      ASSERT_EQ(std::ssize(found), expected.numel()) << "n " << n << " k " << k;
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].index, expected[i].item<int64_t>());
        EXPECT_EQ(found[i].score, row[found[i].index].item<float>());
      }
    }
  }
}

TEST(TopCandidates, LeavesSuppressedScoresOut) {
  auto row = torch::full({200}, -kInfinity);
  row[7] = 1.0;
  row[150] = -2.0;
  TopCandidates top;
  std::vector<Candidate> found;
  for (const int64_t k : {1, 2, 3, 200}) {
    ASSERT_TRUE(top.find(row.data_ptr<float>(), 200, k, found));
    EXPECT_EQ(std::ssize(found), std::min<int64_t>(k, 2));
    EXPECT_EQ(found.front().index, 7);
  }
}

TEST(TopCandidates, ArgmaxIsTheFirstOfEquals) {
  torch::manual_seed(0);
  TopCandidates top;
  for (const int64_t n : {1, 15, 64, 1000, 9001}) {
    const auto row = scores_with_ties(n);
    EXPECT_EQ(top.argmax(row.data_ptr<float>(), n), row.argmax().item<int64_t>());
  }
  const auto suppressed = torch::full({100}, -kInfinity);
  EXPECT_EQ(top.argmax(suppressed.data_ptr<float>(), 100), 0);
}

TEST(TopCandidates, LeavesRowsThatAreNoScoresToOthers) {
  TopCandidates top;
  std::vector<Candidate> found;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    for (const int64_t place : {0, 70, 99}) {
      auto row = torch::zeros({100});
      row[place] = bad;
      EXPECT_FALSE(top.find(row.data_ptr<float>(), 100, 3, found));
      EXPECT_FALSE(top.argmax(row.data_ptr<float>(), 100).has_value());
    }
  }
}

}  // namespace
}  // namespace mistral_ext::generation
