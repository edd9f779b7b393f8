#include "mistral_ext/generation/sampler.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <chrono>
#include <future>
#include <limits>
#include <mutex>

namespace mistral_ext::generation {
namespace {

struct Settings {
  int64_t top_k;
  double top_p;
  double min_p;
};

GenerationConfig sampling(const Settings& settings) {
  GenerationConfig config;
  config.do_sample = true;
  config.top_k = settings.top_k;
  config.top_p = settings.top_p;
  config.min_p = settings.min_p;
  return config;
}

// The plain path: LogitsProcessor::warp, softmax, multinomial.
torch::Tensor plain_draw(const LogitsProcessor& processor,
                         const torch::Tensor& scores,
                         const at::Generator& generator,
                         torch::Tensor& warped) {
  warped = processor.warp(scores);
  return torch::multinomial(warped.softmax(-1), 1, false, generator).squeeze(1);
}

TEST(CandidateSampler, PicksTheTokensAndKeepsTheScoresOfThePlainPathToTheBit) {
  torch::manual_seed(0);
  auto plain_generator = at::detail::createCPUGenerator(1);
  auto generator = plain_generator.clone();
  for (const int64_t vocab_size : {61, 1000, 32003}) {
    for (const int64_t batch : {1, 3}) {
      for (const Settings& settings : {Settings{1, 1.0, 0.0},
                                       Settings{50, 1.0, 0.0},
                                       Settings{50, 0.9, 0.0},
                                       Settings{50, 1e-6, 0.0},
                                       Settings{50, 1.0, 0.05},
                                       Settings{50, 0.95, 0.02},
                                       Settings{5000, 0.7, 0.0},
                                       Settings{0, 0.9, 0.0},
                                       Settings{0, 0.3, 0.0},
                                       Settings{0, 1e-6, 0.0},
                                       Settings{0, 0.999, 0.0},
                                       Settings{0, 0.95, 0.02},
                                       Settings{40000, 0.99, 1.0}}) {
        const auto config = sampling(settings);
        const LogitsProcessor processor(config, LoopExtent());
        CandidateSampler sampler(config);
        for (const double spread : {0.1, 2.0, 8.0}) {
          // Rounded to bf16, as most models' logits are: ties at every cut.
          const auto scores =
              torch::randn({batch, vocab_size}).mul(spread).to(torch::kBFloat16).to(torch::kFloat);
          torch::Tensor plain_scores;
          torch::Tensor warped;
          const auto expected = plain_draw(processor, scores, plain_generator, plain_scores);
          const auto tokens = sampler.sample(scores, generator, &warped);
          ASSERT_TRUE(tokens.has_value());
          EXPECT_TRUE(torch::equal(*tokens, expected))
              << vocab_size << " " << settings.top_k << " " << settings.top_p << " " << spread;
          EXPECT_TRUE(torch::equal(warped, plain_scores));
          EXPECT_TRUE(torch::equal(generator.get_state(), plain_generator.get_state()));
        }
      }
    }
  }
}

TEST(CandidateSampler, DrawsNothingWhereARowCannotBeDrawnFrom) {
  CandidateSampler sampler(sampling({5, 1.0, 0.0}));
  auto generator = at::detail::createCPUGenerator(1);
  const auto state = generator.get_state();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto scores = torch::zeros({2, 100});
    scores[1][3] = bad;
    EXPECT_FALSE(sampler.sample(scores, generator, nullptr).has_value());
  }
  const auto suppressed = torch::full({1, 100}, -std::numeric_limits<float>::infinity());
  EXPECT_FALSE(sampler.sample(suppressed, generator, nullptr).has_value());
  EXPECT_TRUE(torch::equal(generator.get_state(), state));
}

TEST(Sampler, DrawsAlikeWithAndWithoutTheShortCut) {
  torch::manual_seed(0);
  auto config = sampling({20, 0.9, 0.01});
  config.temperature = 0.7;
  config.repetition_penalty = 1.3;
  config.seed = 4;
  Sampler sampler(config, std::nullopt, LoopExtent());
  const LogitsProcessor processor(config, LoopExtent());
  const auto generator = at::detail::createCPUGenerator(4);
  for (int step = 0; step < 20; ++step) {
    const auto ids = torch::randint(0, 500, {2, 30}, torch::kLong);
    const auto logits = torch::randn({2, 500}).mul(4);
    torch::Tensor plain_scores;
    torch::Tensor scores;
    const auto expected =
        plain_draw(processor, processor.process(ids, ids.size(1), logits), generator, plain_scores);
    EXPECT_TRUE(torch::equal(sampler.next_tokens(ids, logits, &scores), expected));
    EXPECT_TRUE(torch::equal(scores, plain_scores));
  }
}

TEST(Sampler, PicksTheFirstOfTheLikeliestAndANanAsArgmaxDoes) {
  Sampler sampler(GenerationConfig(), std::nullopt, LoopExtent());
  const auto ids = torch::zeros({2, 1}, torch::kLong);
  auto logits = torch::tensor({{0.0f, 3.0f, 1.0f, 3.0f}, {5.0f, 5.0f, -1.0f, 2.0f}});
  EXPECT_TRUE(
      torch::equal(sampler.next_tokens(ids, logits, nullptr), torch::tensor({1, 0}, torch::kLong)));
  logits[0][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(torch::equal(sampler.next_tokens(ids, logits, nullptr), logits.argmax(-1)));
}

TEST(Sampler, LeavesTheLogitsAsTheyAre) {
  auto config = sampling({3, 0.9, 0.1});
  config.temperature = 0.5;
  config.repetition_penalty = 2.0;
  config.eos_token_ids = {1};
  config.min_length = 10;
  Sampler sampler(config, std::nullopt, {.vocab_size = 50});
  const auto logits = torch::randn({2, 50});
  const auto before = logits.clone();
  sampler.next_tokens(torch::randint(0, 50, {2, 4}, torch::kLong), logits, nullptr);
  EXPECT_TRUE(torch::equal(logits, before));
}

// Other threads may draw from the default generator: it is copied under its mutex alone.
TEST(ChooseGenerator, ASeedWaitsForThoseWhoDrawFromTheDefaultGenerator) {
  GenerationConfig config;
  config.do_sample = true;
  config.seed = 5;
  auto shared = at::globalContext().defaultGenerator(at::kCPU);
  std::future<uint64_t> seed;
  {
    const std::lock_guard<std::mutex> lock(shared.mutex());
    seed = std::async(std::launch::async, [&] {
      return choose_generator(config, std::nullopt, at::kCPU)->current_seed();
    });
    EXPECT_EQ(seed.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  }
  EXPECT_EQ(seed.get(), 5);
}

}  // namespace
}  // namespace mistral_ext::generation
