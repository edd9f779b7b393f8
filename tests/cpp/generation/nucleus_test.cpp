#include "mistral_ext/generation/nucleus.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "mistral_ext/generation/warpers.h"

namespace mistral_ext::generation {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What find keeps, the rest at -infinity.
torch::Tensor kept(Nucleus& nucleus, const torch::Tensor& scores, double p, int64_t at_least) {
  std::vector<std::vector<Candidate>> rows;
  EXPECT_TRUE(nucleus.find(scores, p, at_least, rows));
  auto all = torch::full_like(scores, -kInfinity);
  for (size_t i = 0; i < rows.size(); ++i) {
    int64_t before = -1;
    for (const auto& [score, index] : rows[i]) {
      EXPECT_GT(index, before);
      before = index;
      all[i][index] = score;
    }
  }
  return all;
}

TEST(Nucleus, KeepsWhatSortingKeepsWithTiesAndWithout) {
  torch::manual_seed(0);
  Nucleus nucleus;
  for (const int64_t vocab_size : {1, 2, 17, 1000, 9001}) {
    for (const double spread : {0.0, 0.1, 2.0, 8.0}) {
      for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
        const auto scores =
            torch::randn({2, vocab_size}).mul(spread).to(dtype).to(torch::kFloat).contiguous();
        for (const double p : {1e-9, 0.9, 0.999}) {
          for (const int64_t at_least : {1, 5}) {
            const auto expected = keep_top_p(scores, p, at_least);
            EXPECT_TRUE(torch::equal(kept(nucleus, scores, p, at_least), expected))
                << vocab_size << " tokens, spread " << spread << ", p " << p;
          }
        }
      }
    }
  }
}

TEST(Nucleus, LeavesSuppressedScoresOut) {
  Nucleus nucleus;
  auto scores = torch::full({1, 300}, -kInfinity);
  scores[0][7] = 1.0;
  scores[0][150] = -2.0;
  scores[0][200] = -0.0;
  for (const double p : {0.1, 0.9, 0.9999}) {
    EXPECT_TRUE(torch::equal(kept(nucleus, scores, p, 1), keep_top_p(scores, p)));
  }
}

TEST(Nucleus, LeavesRowsThatAreNoScoresToOthers) {
  Nucleus nucleus;
  std::vector<std::vector<Candidate>> rows;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::nanf(""), kInfinity}) {
    auto scores = torch::zeros({2, 100});
    scores[1][3] = bad;
    EXPECT_FALSE(nucleus.find(scores, 0.9, 1, rows));
  }
  EXPECT_FALSE(nucleus.find(torch::full({1, 9}, -kInfinity), 0.9, 1, rows));
}

TEST(SortOrder, IsThatOfSortAtAnyPlaces) {
  if (!SortOrder::is_known()) GTEST_SKIP() << "this torch sorts in another way";
  torch::manual_seed(0);
  SortOrder order;
  std::vector<int64_t> indices;
  for (const int64_t n : {1, 16, 17, 333, 49152}) {
    for (const int64_t values : {1, 3, 50, 5000}) {
      const auto row = torch::randint(values, {1, n}, torch::kFloat);
      const auto sorted = std::get<1>(row.sort(-1));
      for (const auto& [begin, end] : {std::pair{INT64_C(0), n}, {n / 3, n / 2}, {n - 1, n}}) {
        ASSERT_TRUE(order.find(row.const_data_ptr<float>(), n, begin, end, indices));
        EXPECT_TRUE(
            torch::equal(torch::tensor(indices, torch::kLong), sorted[0].slice(0, begin, end)));
      }
    }
  }
}

}  // namespace
}  // namespace mistral_ext::generation
