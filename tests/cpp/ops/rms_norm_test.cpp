#include "mistral_ext/ops/rms_norm.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "mistral_ext/ops/add_rms_norm.h"
#include "ops/error_message.h"

namespace mistral_ext::ops {
namespace {

TEST(RmsNorm, DividesByTheRootMeanSquareAndMultipliesByTheWeight) {
  const auto x = torch::tensor({{3.0, 4.0}, {0.0, 0.0}});
  const auto y = rms_norm(x, torch::tensor({1.0, 2.0}), /*eps=*/0.0625);
  const double root = std::sqrt(12.5 + 0.0625);
  EXPECT_TRUE(torch::allclose(y, torch::tensor({{3.0 / root, 8.0 / root}, {0.0, 0.0}})));
}

TEST(RmsNorm, KernelAndReferenceAgreeForwardAndBackward) {
  torch::manual_seed(0);
  const auto x = torch::randn({70, 100});
  const auto grad = torch::randn({70, 100});
  const auto weight = torch::randn({100});
  EXPECT_TRUE(
      torch::allclose(rms_norm(x, weight, 1e-5), rms_norm_reference(x, weight, 1e-5), 1e-5, 1e-6));
  const auto [grad_x, grad_weight] = rms_norm_backward(grad, x, weight, 1e-5);
  const auto [want_x, want_weight] = rms_norm_backward_reference(grad, x, weight, 1e-5);
  EXPECT_TRUE(torch::allclose(grad_x, want_x, 1e-5, 1e-5));
  EXPECT_TRUE(torch::allclose(grad_weight, want_weight, 1e-5, 1e-5));
}

TEST(RmsNorm, BackwardDoesNotDependOnTheNumberOfThreads) {
  const auto x = torch::randn({500, 300});
  const auto weight = torch::randn({300});
  const int threads = torch::get_num_threads();
  torch::set_num_threads(1);
  const auto alone = std::get<1>(rms_norm_backward(x, x, weight, 1e-5));
  torch::set_num_threads(3);
  const auto together = std::get<1>(rms_norm_backward(x, x, weight, 1e-5));
  torch::set_num_threads(threads);
  EXPECT_TRUE(torch::equal(alone, together));
}

TEST(RmsNorm, NamesTheWeightOfAnotherLength) {
  EXPECT_EQ(error_message([] { rms_norm(torch::ones({2, 8}), torch::ones({7}), 1e-5); }),
            "rms_norm: weight must have shape [8], got [7]");
}

TEST(AddRmsNorm, ReturnsTheNormAndTheSum) {
  const auto x = torch::randn({5, 33});
  const auto residual = torch::randn({5, 33});
  const auto weight = torch::randn({33});
  const auto [y, sum] = add_rms_norm(x, residual, weight, 1e-5);
  EXPECT_TRUE(torch::equal(sum, x + residual));
  EXPECT_TRUE(torch::equal(y, rms_norm(sum, weight, 1e-5)));
}

TEST(AddRmsNorm, TrainsInCpp) {
  const auto x = torch::randn({5, 8}, torch::requires_grad());
  const auto residual = torch::randn({5, 8}, torch::requires_grad());
  const auto weight = torch::randn({8}, torch::requires_grad());
  const auto [y, sum] = add_rms_norm(x, residual, weight, 1e-5);
  (y.square().sum() + sum.sum()).backward();
  EXPECT_TRUE(torch::equal(x.grad(), residual.grad()));
  EXPECT_EQ(weight.grad().sizes(), weight.sizes());
}

}  // namespace
}  // namespace mistral_ext::ops
