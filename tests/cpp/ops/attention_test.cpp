#include "mistral_ext/ops/attention.h"

#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <string>
#include <tuple>

namespace mistral_ext::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Inputs {
  at::Tensor query, key, value;
};

Inputs make_inputs(at::ScalarType type,
                   int64_t heads,
                   int64_t kv_heads,
                   int64_t head_dim,
                   int64_t query_len,
                   int64_t key_len) {
  torch::manual_seed(0);
  return {torch::randn({2, query_len, heads, head_dim}).to(type),
          torch::randn({2, key_len, kv_heads, head_dim}).to(type),
          torch::randn({2, key_len, kv_heads, head_dim}).to(type)};
}

// Causal attention within a window, all scores at once, in fp64.
at::Tensor oracle(const Inputs& inputs, double scale, int64_t window) {
  const auto group = inputs.query.size(2) / inputs.key.size(2);
  const auto query_len = inputs.query.size(1);
  const auto key_len = inputs.key.size(1);
  const auto heads_first = [](const at::Tensor& x) { return x.to(at::kDouble).transpose(1, 2); };
  const auto keys = heads_first(inputs.key).repeat_interleave(group, 1);
  const auto values = heads_first(inputs.value).repeat_interleave(group, 1);
  const auto slots = torch::arange(key_len - query_len, key_len).unsqueeze(1);
  const auto key_slots = torch::arange(key_len);
  auto hidden = key_slots > slots;
  if (window > 0) hidden = hidden | (key_slots <= slots - window);
  const auto scores = heads_first(inputs.query)
                          .matmul(keys.transpose(2, 3))
                          .mul(scale)
                          .masked_fill(hidden, -kInfinity);
  return scores.softmax(-1).matmul(values).transpose(1, 2);
}

// Sums of some hundred products in fp32; the output's rounding, and that of the weights, in the
// 16-bit types.
double tolerance(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 1e-12;
    case at::kFloat:
      return 5e-6;
    case at::kBFloat16:
      return 1.6e-2;
    default:
      return 2e-3;
  }
}

class AttentionGrid : public testing::TestWithParam<std::tuple<at::ScalarType, int64_t, int64_t>> {
};

TEST_P(AttentionGrid, EqualsTheOracleForwardAndBackward) {
  const auto [type, head_dim, query_len] = GetParam();
  for (const int64_t window : {0, 70}) {
    Inputs ours = make_inputs(type, 6, 2, head_dim, query_len, 200);
    Inputs theirs{ours.query.to(at::kDouble), ours.key.to(at::kDouble), ours.value.to(at::kDouble)};
    at::Tensor* const leaves[] = {
        &ours.query, &theirs.query, &ours.key, &theirs.key, &ours.value, &theirs.value};
    for (auto* leaf : leaves) *leaf = leaf->detach().clone().requires_grad_();
    const auto output = std::get<0>(attention(ours.query, ours.key, ours.value, 0.2, true, window));
    const auto expected = oracle(theirs, 0.2, window);
    EXPECT_LE((output.to(at::kDouble) - expected).abs().max().item<double>(), tolerance(type));
    const auto gradient = torch::randn(output.sizes()).to(type);
    output.backward(gradient);
    expected.backward(gradient.to(at::kDouble));
    for (int i = 0; i < 6; i += 2) {
      const auto right = leaves[i + 1]->grad();
      const auto error = (leaves[i]->grad().to(at::kDouble) - right).abs().max().item<double>();
      EXPECT_LE(error, 2 * tolerance(type) * std::max(1.0, right.abs().max().item<double>()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Attention,
    AttentionGrid,
    testing::Combine(testing::Values(at::kFloat, at::kBFloat16, at::kHalf, at::kDouble),
                     testing::Values(int64_t{33}, int64_t{64}),
                     testing::Values(int64_t{1}, int64_t{3}, int64_t{130})),
    [](const auto& info) {
      return std::string(c10::toString(std::get<0>(info.param))) + "_head_dim_" +
             std::to_string(std::get<1>(info.param)) + "_queries_" +
             std::to_string(std::get<2>(info.param));
    });

TEST(Attention, RowWithNoVisibleKeyIsZeroWithLogsumexpOfMinusInfinity) {
  const auto inputs = make_inputs(at::kFloat, 4, 2, 64, 3, 100);
  const auto mask = torch::ones({2, 100}, torch::kBool);
  mask[1].fill_(false);
  const auto [output, logsumexp] =
      attention(inputs.query, inputs.key, inputs.value, 0.2, true, 0, mask);
  EXPECT_TRUE(output[1].eq(0).all().item<bool>());
  EXPECT_TRUE(logsumexp[1].eq(-kInfinity).all().item<bool>());
  EXPECT_TRUE(output[0].ne(0).any().item<bool>());
}

TEST(Attention, NamesTheArgumentThatDoesNotFit) {
  const auto inputs = make_inputs(at::kFloat, 4, 2, 8, 3, 5);
  try {
    attention(inputs.query, inputs.key, inputs.value.slice(1, 1), 0.2);
    FAIL() << "no error";
  } catch (const c10::ValueError& error) {
    EXPECT_STREQ(error.what_without_backtrace(),
                 "attention: value must have key's shape [2, 5, 2, 8], got [2, 4, 2, 8]");
  }
}

// Counts what is allocated while it is the allocator.
class PeakCounter : public c10::Allocator {
 public:
  PeakCounter() { c10::SetCPUAllocator(this, kPriority); }
  ~PeakCounter() override { c10::SetCPUAllocator(c10::GetDefaultCPUAllocator(), kPriority); }

  c10::DataPtr allocate(size_t bytes) override {
    auto* const memory =
        static_cast<char*>(std::aligned_alloc(kHeader, (bytes / kHeader + 2) * kHeader));
    *reinterpret_cast<size_t*>(memory) = bytes;
    const size_t now = live_ += bytes;
    size_t peak = peak_;
    while (peak < now && !peak_.compare_exchange_weak(peak, now)) {
    }
    return {memory + kHeader, memory, &release, c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  size_t peak() const { return peak_; }

 private:
  static constexpr uint8_t kPriority = 100;
  static constexpr size_t kHeader = 64;
  static void release(void* memory) {
    live_ -= *static_cast<size_t*>(memory);
    std::free(memory);
  }
  inline static std::atomic<size_t> live_ = 0;
  std::atomic<size_t> peak_ = 0;
};

TEST(Attention, HoldsNoMatrixOfScoresForwardOrBackward) {
  constexpr int64_t kLength = 4096;
  const auto query = torch::randn({1, kLength, 4, 32});
  const auto key = torch::randn({1, kLength, 2, 32});
  const auto gradient = torch::randn_like(query);
  const PeakCounter counter;
  const auto [output, logsumexp] = attention(query, key, key, 0.2);
  const auto gradients = attention_backward(gradient, query, key, key, output, logsumexp, 0.2);
  // The results are 6 MiB; the scores of one head alone are 64 MiB.
  EXPECT_GT(counter.peak(), size_t{6} << 20);
  EXPECT_LT(counter.peak(), size_t{12} << 20);
}

}  // namespace
}  // namespace mistral_ext::ops
