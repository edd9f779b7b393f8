#include "mistral_ext/ops/silu_mul.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "ops/error_message.h"

namespace mistral_ext::ops {
namespace {

TEST(SiluMul, IsZeroAtZeroAndForVeryNegativeGates) {
  const auto y = silu_mul(torch::tensor({0.0f, -1e30f, -500.0f}), torch::ones({3}));
  EXPECT_TRUE(torch::equal(y, torch::zeros({3})));
}

TEST(SiluMul, KernelAndReferenceAgreeForwardAndBackward) {
  torch::manual_seed(0);
  const auto gate = torch::randn({9, 77});
  const auto up = torch::randn({9, 77});
  const auto grad = torch::randn({9, 77});
  EXPECT_TRUE(torch::allclose(silu_mul(gate, up), silu_mul_reference(gate, up), 1e-6, 1e-6));
  const auto [grad_gate, grad_up] = silu_mul_backward(grad, gate, up);
  const auto [want_gate, want_up] = silu_mul_backward_reference(grad, gate, up);
  EXPECT_TRUE(torch::allclose(grad_gate, want_gate, 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(grad_up, want_up, 1e-5, 1e-6));
}

TEST(SiluMul, NamesTheUpOfAnotherShape) {
  EXPECT_EQ(error_message([] { silu_mul(torch::ones({2, 8}), torch::ones({2, 7})); }),
            "silu_mul: up must have gate's shape [2, 8], got [2, 7]");
}

}  // namespace
}  // namespace mistral_ext::ops
