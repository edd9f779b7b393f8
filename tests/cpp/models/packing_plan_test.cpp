#include "mistral_ext/models/packing_plan.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace mistral_ext::models {
namespace {

constexpr int64_t kPad = 7;

// Two rows: two places of padding and two tokens, and four tokens.
ModelInputs padded() {
  ModelInputs inputs;
  inputs.input_ids =
      at::tensor(
          {kPad, kPad, int64_t{1}, int64_t{2}, int64_t{3}, int64_t{4}, int64_t{5}, int64_t{6}})
          .view({2, 4});
  inputs.attention_mask = inputs.input_ids.ne(kPad).to(at::kLong);
  return inputs;
}

TEST(PackingPlan, PutsTheTokensInOneRowAndOnePlaceOfPaddingBehind) {
  const at::NoGradGuard no_grad;
  const auto inputs = padded();
  const auto packing = plan_packing(inputs);
  ASSERT_TRUE(packing.has_value());
  const auto row = packing->pack(inputs.input_ids);
  EXPECT_TRUE(at::equal(row, at::tensor({1, 2, 3, 4, 5, 6, 7}, at::kLong).unsqueeze(0)));
  EXPECT_TRUE(at::equal(packing->unpack(row), inputs.input_ids));
}

TEST(PackingPlan, TakesTheNewTokensOfAMaskThatIsOfCachedOnesToo) {
  const at::NoGradGuard no_grad;
  auto inputs = padded();
  inputs.attention_mask =
      at::cat({at::tensor({0, 0, 1, 1}, at::kLong).view({2, 2}), inputs.attention_mask}, 1);
  const auto packing = plan_packing(inputs);
  ASSERT_TRUE(packing.has_value());
  EXPECT_TRUE(at::equal(packing->unpack(packing->pack(inputs.input_ids)), inputs.input_ids));
}

TEST(PackingPlan, LeavesNothingOutWhereGradientsAreRecorded) {
  EXPECT_FALSE(plan_packing(padded()).has_value());
}

TEST(PackingPlan, LeavesNothingOutWhereHiddenStatesAreShown) {
  const at::NoGradGuard no_grad;
  auto inputs = padded();
  inputs.output_hidden_states = true;
  EXPECT_FALSE(plan_packing(inputs).has_value());
}

TEST(PackingPlan, LeavesNothingOutWithoutPadding) {
  const at::NoGradGuard no_grad;
  auto inputs = padded();
  inputs.attention_mask.fill_(1);
  EXPECT_FALSE(plan_packing(inputs).has_value());
}

TEST(PackingPlan, LeavesNothingOutWherePaddingStandsBehindTokens) {
  const at::NoGradGuard no_grad;
  auto inputs = padded();
  inputs.attention_mask[0][3] = 0;
  inputs.input_ids[0][3] = kPad;
  EXPECT_FALSE(plan_packing(inputs).has_value());
}

TEST(PackingPlan, LeavesNothingOutWherePaddingIsOfSeveralTokens) {
  const at::NoGradGuard no_grad;
  auto inputs = padded();
  inputs.input_ids[0][1] = kPad + 1;
  EXPECT_FALSE(plan_packing(inputs).has_value());
}

}  // namespace
}  // namespace mistral_ext::models
