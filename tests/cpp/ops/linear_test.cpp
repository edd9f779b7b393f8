#include "mistral_ext/ops/linear.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "ops/error_message.h"

namespace mistral_ext::ops {
namespace {

TEST(Linear, MultipliesByTheTransposedWeight) {
  const auto y =
      ops::linear(torch::tensor({{1.0f, 2.0f}}), torch::tensor({{3.0f, 4.0f}, {5.0f, 6.0f}}));
  EXPECT_TRUE(torch::equal(y, torch::tensor({{11.0f, 17.0f}})));
}

TEST(Linear, KernelAndReferenceAgree) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const auto x = torch::randn({3, 100}).to(dtype);
    const auto weight = torch::randn({37, 100}).to(dtype);
    // Sums of 100 products of about 1, rounded once: half a unit of 32 in bf16 is 0.125.
    EXPECT_TRUE(torch::allclose(ops::linear(x, weight), linear_reference(x, weight), 1e-2, 1e-2))
        << dtype;
  }
}

TEST(Linear, SeveralWeightsOfOneInputGiveTheBitsOfOneByOne) {
  torch::manual_seed(0);
  torch::NoGradGuard no_grad;
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf, torch::kDouble}) {
    for (const int64_t rows : {1, 5, 16, 40}) {
      const auto x = torch::randn({rows, 576}).to(dtype);
      const std::vector<at::Tensor> weights = {torch::randn({576, 576}).to(dtype),
                                               torch::randn({190, 576}).to(dtype),
                                               torch::randn({0, 576}).to(dtype),
                                               torch::randn({1, 576}).to(dtype)};
      const auto ys = linear_many(x, weights);
      ASSERT_EQ(ys.size(), weights.size());
      for (size_t i = 0; i < weights.size(); ++i) {
        EXPECT_TRUE(torch::equal(ys[i], ops::linear(x, weights[i]))) << dtype << ", rows " << rows;
      }
    }
  }
}

TEST(Linear, SeveralWeightsAreDifferentiable) {
  const auto x = torch::randn({2, 8}, torch::requires_grad());
  const std::vector<at::Tensor> weights = {torch::randn({4, 8}, torch::requires_grad()),
                                           torch::randn({3, 8})};
  const auto ys = linear_many(x, weights);
  (ys[0].sum() + ys[1].sum()).backward();
  EXPECT_TRUE(torch::allclose(x.grad()[0], weights[0].sum(0) + weights[1].sum(0)));
  EXPECT_TRUE(torch::allclose(weights[0].grad()[0], x.sum(0)));
}

TEST(Linear, NoWeightsGiveNoResults) { EXPECT_TRUE(linear_many(torch::ones({1, 8}), {}).empty()); }

TEST(Linear, NamesTheWeightOfAnotherWidth) {
  const std::string message = "linear: weight must have shape [out_features, 8], got [4, 7]";
  const auto x = torch::ones({2, 8});
  const auto weight = torch::ones({4, 7});
  EXPECT_EQ(error_message([&] { ops::linear(x, weight); }), message);
  EXPECT_EQ(error_message([&] { linear_many(x, weight); }), message);
}

}  // namespace
}  // namespace mistral_ext::ops
