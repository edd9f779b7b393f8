#include "mistral_ext/generation/logits_processor.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "mistral_ext/generation/repeated_ngrams.h"
#include "mistral_ext/generation/warpers.h"

namespace mistral_ext::generation {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int64_t kVocabulary = 20;
const LoopExtent kExtent{.prompt_length = 3, .max_length = 8, .vocab_size = kVocabulary};

torch::Tensor ids(const std::vector<int64_t>& row) {
  return torch::tensor(row, torch::kLong).unsqueeze(0);
}

// What the processors forbid in the first row.
std::set<int64_t> forbidden(const torch::Tensor& scores) {
  std::set<int64_t> tokens;
  for (int64_t i = 0; i < scores.size(1); ++i) {
    if (scores[0][i].item<float>() == kMinusInfinity) tokens.insert(i);
  }
  return tokens;
}

std::set<int64_t> forbidden(const GenerationConfig& config, const std::vector<int64_t>& row) {
  const auto tokens = ids(row);
  const LogitsProcessor processor(config, kExtent);
  return forbidden(processor.process(tokens, tokens.size(1), torch::randn({1, kVocabulary})));
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

using Tokens = std::set<int64_t>;

TEST(RepeatedNgrams, AreForbiddenWhereverTheyBegan) {
  const auto scores = torch::randn({1, kVocabulary});
  const std::vector<int64_t> row = {1, 2, 3, 1, 2, 5, 2, 3, 1, 2};
  const auto of = [&](int64_t n) { return forbidden(forbid_repeated_ngrams(scores, ids(row), n)); };
  EXPECT_EQ(of(1), (Tokens{1, 2, 3, 5}));
  EXPECT_EQ(of(2), (Tokens{3, 5}));
  EXPECT_EQ(of(3), (Tokens{3, 5}));
  EXPECT_EQ(of(4), (Tokens{5}));
  EXPECT_EQ(of(5), (Tokens{5}));
  EXPECT_EQ(of(6), Tokens{});
  EXPECT_EQ(of(10), Tokens{});
  EXPECT_EQ(of(11), Tokens{});
  EXPECT_EQ(of(1000), Tokens{});
}

TEST(RepeatedNgrams, OverlapThemselves) {
  const auto scores = torch::zeros({1, kVocabulary});
  EXPECT_EQ(forbidden(forbid_repeated_ngrams(scores, ids({4, 4}), 2)), (Tokens{4}));
  EXPECT_EQ(forbidden(forbid_repeated_ngrams(scores, ids({4}), 2)), Tokens{});
}

TEST(RepeatedNgrams, AreEachRowsOwnAndLeaveTheScoresAsTheyAre) {
  const auto scores = torch::randn({2, kVocabulary});
  const auto before = scores.clone();
  // Columns of something longer, as the loop has them.
  const auto rows = torch::tensor({{6, 7, 6, 0}, {8, 9, 8, 0}}, torch::kLong).narrow(1, 0, 3);
  const auto left = forbid_repeated_ngrams(scores, rows, 2);
  EXPECT_EQ(forbidden(left.narrow(0, 0, 1)), (Tokens{7}));
  EXPECT_EQ(forbidden(left.narrow(0, 1, 1)), (Tokens{9}));
  EXPECT_TRUE(torch::equal(scores, before));
}

TEST(RepeatedNgrams, RefuseTokensBeyondTheVocabulary) {
  const auto scores = torch::zeros({1, 5});
  EXPECT_NE(error_of([&] {
              forbid_repeated_ngrams(scores, ids({1, 7}), 1);
            }).find("generate: input_ids must be in [0, 5), got 7"),
            std::string::npos);
}

TEST(LogitsProcessor, ForbidsBadWordsOnceTheirBeginningIsThere) {
  GenerationConfig config;
  config.eos_token_ids = {2};
  // The end alone is no bad word; one of n tokens counts from n tokens on.
  config.bad_words_ids = {{5}, {2}, {6, 7}, {8, 6, 9}, {1, 8, 6, 10}};
  EXPECT_EQ(forbidden(config, {1, 3, 4}), (Tokens{5}));
  EXPECT_EQ(forbidden(config, {3, 1, 6}), (Tokens{5, 7}));
  EXPECT_EQ(forbidden(config, {3, 8, 6}), (Tokens{5, 7, 9}));
  EXPECT_EQ(forbidden(config, {1, 8, 6}), (Tokens{5, 7, 9}));
  EXPECT_EQ(forbidden(config, {3, 1, 8, 6}), (Tokens{5, 7, 9, 10}));
}

TEST(LogitsProcessor, AddsTheBiasesOfAllSequencesThatATokenCompletes) {
  GenerationConfig config;
  config.sequence_bias = {{{4}, 1.0}, {{3, 4}, 0.5}, {{1, 3, 4}, 0.25}, {{9, 4}, 100.0}};
  const LogitsProcessor processor(config, kExtent);
  EXPECT_TRUE(processor.reads_tokens());
  const auto rows = torch::tensor({{0, 1, 3}, {0, 0, 3}, {0, 0, 0}}, torch::kLong);
  const auto gained = processor.process(rows, 3, torch::zeros({3, kVocabulary}));
  auto expected = torch::zeros({3, kVocabulary});
  expected.select(1, 4).copy_(torch::tensor({1.75f, 1.5f, 1.0f}));
  EXPECT_TRUE(torch::equal(gained, expected));
}

TEST(LogitsProcessor, SuppressesTokensAtEveryStepAndAtTheBegin) {
  GenerationConfig config;
  config.suppress_tokens = {4, 19, 20, -1};  // two that there are not
  config.begin_suppress_tokens = {7};
  EXPECT_EQ(forbidden(config, {1, 2, 3}), (Tokens{4, 7, 19}));
  EXPECT_EQ(forbidden(config, {1, 2, 3, 4}), (Tokens{4, 19}));
  config.begin_index = 4;
  EXPECT_EQ(forbidden(config, {1, 2, 3}), (Tokens{4, 19}));
  EXPECT_EQ(forbidden(config, {1, 2, 3, 4}), (Tokens{4, 7, 19}));
}

TEST(LogitsProcessor, ForcesTheFirstAndTheLastToken) {
  GenerationConfig config;
  config.forced_bos_token_id = 5;
  config.forced_eos_token_ids = {6, 7};
  EXPECT_EQ(forbidden(config, {1}).size(), kVocabulary - 1);
  EXPECT_EQ(forbidden(config, {1, 2}).size(), 0);
  EXPECT_EQ(forbidden(config, {1, 2, 3, 4, 5, 6, 7}).size(), kVocabulary - 2);
}

TEST(LogitsProcessor, FavoursTheEndsMoreAndMore) {
  GenerationConfig config;
  config.eos_token_ids = {2, 3};
  config.exponential_decay_length_penalty = ExponentialDecay{.start = 1, .factor = 2.0};
  const LogitsProcessor processor(config, kExtent);
  const auto scores = torch::full({1, kVocabulary}, -4.0f);
  const auto end = [&](int64_t length) {
    return processor.process({}, length, scores)[0][2].item<float>();
  };
  EXPECT_EQ(end(3), -4.0f);
  EXPECT_EQ(end(4), -4.0f);
  EXPECT_EQ(end(5), 0.0f);
  EXPECT_EQ(end(6), 8.0f);
  EXPECT_NE(error_of([&] { end(3000); }).find("exponential_decay_length_penalty must keep"),
            std::string::npos);
}

TEST(LogitsProcessor, TakesTheFarthestBounds) {
  GenerationConfig config;
  config.eos_token_ids = {2};
  config.min_new_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(forbidden(config, {1, 3, 4, 5}), (Tokens{2}));
  config.min_new_tokens = 0;
  config.exponential_decay_length_penalty =
      ExponentialDecay{.start = std::numeric_limits<int64_t>::min(), .factor = 0.5};
  const LogitsProcessor processor(config, kExtent);
  const auto scores = processor.process({}, 4, torch::full({1, kVocabulary}, -4.0f));
  EXPECT_EQ(scores[0][2].item<float>(), -8.0f);
}

TEST(LogitsProcessor, RemovesWhatIsNoNumberAndRenormalisesLast) {
  GenerationConfig config;
  config.remove_invalid_values = true;
  config.renormalize_logits = true;
  auto scores = torch::zeros({1, kVocabulary});
  scores[0][1] = std::nanf("");
  scores[0][2] = kMinusInfinity;
  const LogitsProcessor processor(config, kExtent);
  const auto valid = processor.process({}, 3, scores);
  EXPECT_EQ(valid[0][1].item<float>(), 0.0f);
  EXPECT_EQ(valid[0][2].item<float>(), std::numeric_limits<float>::lowest());
  EXPECT_TRUE(torch::equal(processor.finish(valid), valid.log_softmax(-1)));
}

TEST(LogitsProcessor, RefusesTokensThatAreNotInTheVocabulary) {
  const auto refused = [](const std::function<void(GenerationConfig&)>& change) {
    GenerationConfig config;
    change(config);
    return error_of([&] { LogitsProcessor(config, kExtent); });
  };
  EXPECT_NE(refused([](auto& config) {
              config.bad_words_ids = {{1, 20}};
            }).find("generate: bad_words_ids must be in [0, 20), got 20"),
            std::string::npos);
  EXPECT_NE(refused([](auto& config) {
              config.bad_words_ids = {{}};
            }).find("generate: bad_words_ids must not be empty"),
            std::string::npos);
  EXPECT_NE(refused([](auto& config) {
              config.sequence_bias = {{{-1}, 1.0}};
            }).find("generate: sequence_bias must be in [0, 20), got -1"),
            std::string::npos);
  EXPECT_NE(refused([](auto& config) {
              config.forced_bos_token_id = 20;
            }).find("generate: forced_bos_token_id must be in [0, 20), got 20"),
            std::string::npos);
  EXPECT_NE(refused([](auto& config) {
              config.forced_eos_token_ids = {2, 20};
            }).find("generate: forced_eos_token_ids must be in [0, 20), got 20"),
            std::string::npos);
}

TEST(Warpers, KeepWhatTheirDefinitionsSay) {
  const auto probabilities = torch::tensor({{0.5f, 0.25f, 0.125f, 0.0625f, 0.0625f}});
  const auto scores = probabilities.log();
  EXPECT_EQ(forbidden(keep_epsilon(scores, 0.1)), (Tokens{3, 4}));
  EXPECT_EQ(forbidden(keep_epsilon(scores, 0.9)), (Tokens{1, 2, 3, 4}));
  EXPECT_EQ(forbidden(keep_epsilon(scores, 0.9, 2)), (Tokens{2, 3, 4}));
  // The entropy is 1.875 bits, so the bound is sqrt(0.25) / 2^1.875 = 0.136.
  EXPECT_EQ(forbidden(keep_eta(scores, 0.25)), (Tokens{2, 3, 4}));
  // Surprises 1, 2, 3, 4, 4 bits against 1.875: tokens 1, 0, 2 come first.
  EXPECT_EQ(forbidden(keep_typical(scores, 0.2)), (Tokens{0, 2, 3, 4}));
  EXPECT_EQ(forbidden(keep_typical(scores, 0.6)), (Tokens{2, 3, 4}));
  EXPECT_EQ(forbidden(keep_typical(scores, 0.2, 3)), (Tokens{3, 4}));
  // Terms of the entropy 0.5, 0.5, 0.375, 0.25, 0.25.
  EXPECT_EQ(forbidden(keep_top_h(scores, 0.6)), (Tokens{2, 3, 4}));
  EXPECT_EQ(forbidden(keep_top_h(scores, 0.01)), (Tokens{1, 2, 3, 4}));
}

}  // namespace
}  // namespace mistral_ext::generation
