#include <gtest/gtest.h>
#include <torch/torch.h>

#include "mistral_ext/generation/beam_search.h"
#include "mistral_ext/generation/generate.h"
#include "mistral_ext/generation/stream_tokens.h"
#include "models/tiny_model.h"

namespace mistral_ext::generation {
namespace {

using models::tiny_model;

constexpr int64_t kPrompt = 9;
constexpr int64_t kNew = 12;

GenerateInputs prompt(int64_t batch = 2) {
  torch::manual_seed(1);
  GenerateInputs inputs;
  inputs.input_ids = torch::randint(3, 61, {batch, kPrompt}, torch::kLong);
  return inputs;
}

GenerationConfig config(int64_t max_new_tokens = kNew) {
  GenerationConfig config;
  config.max_new_tokens = max_new_tokens;
  return config;
}

// Asks for a stop in the given step, counted from 1.
Callbacks stopping_in(int64_t step, const std::shared_ptr<std::stop_source>& stop) {
  Callbacks callbacks;
  callbacks.stop = stop->get_token();
  callbacks.on_step = [=, left = step](const Step&) mutable {
    if (--left == 0) stop->request_stop();
    return torch::Tensor();
  };
  return callbacks;
}

TEST(Cancel, ReturnsTheTokensSoFarAndTheCacheGoesOn) {
  const auto model = tiny_model();
  for (const int64_t step : {int64_t{1}, int64_t{4}, kNew - 1}) {
    auto inputs = prompt();
    const auto whole = generate(*model, inputs, config()).sequences;
    cache::KVCache cache(model->config());
    inputs.cache = &cache;
    const auto callbacks = stopping_in(step, std::make_shared<std::stop_source>());
    const auto output = generate(*model, inputs, config(), callbacks);
    EXPECT_TRUE(output.cancelled);
    EXPECT_EQ(output.steps, step);
    EXPECT_FALSE(output.stopped.any().item<bool>());
    EXPECT_TRUE(torch::equal(output.sequences, whole.narrow(1, 0, kPrompt + step)));
    EXPECT_EQ(cache.seen(), kPrompt + step - 1);
    inputs.input_ids = output.sequences;
    EXPECT_TRUE(torch::equal(generate(*model, inputs, config(kNew - step)).sequences, whole));
  }
}

TEST(Cancel, OfARequestInTheLastStepNothingIsLeftToCancel) {
  const auto model = tiny_model();
  const auto callbacks = stopping_in(kNew, std::make_shared<std::stop_source>());
  const auto output = generate(*model, prompt(), config(), callbacks);
  EXPECT_FALSE(output.cancelled);
  EXPECT_EQ(output.steps, kNew);
}

TEST(Cancel, BeforeThePromptRunsNothing) {
  const auto model = tiny_model();
  auto inputs = prompt();
  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  const auto stop = std::make_shared<std::stop_source>();
  stop->request_stop();
  const auto callbacks = stopping_in(-1, stop);
  const auto output = generate(*model, inputs, config(), callbacks);
  EXPECT_TRUE(output.cancelled);
  EXPECT_EQ(output.steps, 0);
  EXPECT_TRUE(torch::equal(output.sequences, inputs.input_ids));
  EXPECT_EQ(output.stopped.numel(), 2);
  EXPECT_EQ(cache.seen(), 0);

  const auto beams =
      beam_search(*model, inputs, config(), {.num_beams = 3, .num_return_sequences = 2}, callbacks);
  EXPECT_TRUE(beams.cancelled);
  EXPECT_EQ(beams.steps, 0);
  EXPECT_TRUE(torch::equal(beams.sequences, inputs.input_ids.repeat_interleave(2, 0)));
  EXPECT_EQ(beams.sequences_scores.numel(), 4);
  EXPECT_EQ(beams.beam_indices.sizes(), (std::vector<int64_t>{4, 0}));
  EXPECT_EQ(cache.seen(), 0);
}

TEST(Cancel, BetweenTwoChunksOfThePromptTheCacheKeepsWholeChunks) {
  const auto model = tiny_model();
  auto inputs = prompt();
  const auto whole = generate(*model, inputs, config()).sequences;
  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  auto in_chunks = config();
  in_chunks.prefill_chunk_size = 2;
  std::stop_source stop;
  Callbacks callbacks;
  callbacks.stop = stop.get_token();
  callbacks.check_interrupt = [&, passes = 0]() mutable {
    if (++passes == 3) stop.request_stop();
  };
  const auto output = generate(*model, inputs, in_chunks, callbacks);
  EXPECT_TRUE(output.cancelled);
  EXPECT_EQ(output.steps, 0);
  EXPECT_EQ(cache.seen(), 6);
  EXPECT_TRUE(torch::equal(output.sequences, inputs.input_ids));
  EXPECT_TRUE(torch::equal(generate(*model, inputs, in_chunks).sequences, whole));
}

TEST(Cancel, BeamsEndAsThoughTheGreatestLengthWereReached) {
  const auto model = tiny_model();
  const BeamSearchConfig beams{.num_beams = 3, .num_return_sequences = 3};
  for (const int64_t step : {1, 5}) {
    auto inputs = prompt();
    const auto expected = beam_search(*model, inputs, config(step), beams);
    cache::KVCache cache(model->config());
    inputs.cache = &cache;
    // The step that comes after the request is seen is the last one.
    const auto callbacks = stopping_in(step - 1, std::make_shared<std::stop_source>());
    std::stop_source now;
    auto used = callbacks;
    if (step == 1) {
      // Between the prompt and the first step.
      used.check_interrupt = [&] { now.request_stop(); };
      used.stop = now.get_token();
    }
    const auto found = beam_search(*model, inputs, config(), beams, used);
    EXPECT_TRUE(found.cancelled);
    EXPECT_EQ(found.steps, step);
    EXPECT_TRUE(torch::equal(found.sequences, expected.sequences));
    EXPECT_TRUE(torch::equal(found.sequences_scores, expected.sequences_scores));
    EXPECT_TRUE(torch::equal(found.beam_indices, expected.beam_indices));
    EXPECT_EQ(cache.seen(), kPrompt + step - 1);
    EXPECT_EQ(cache.batch_size(), 6);
  }
}

TEST(StreamTokens, HandsOverEachTokenAndStopsWhereItIsTold) {
  const auto model = tiny_model();
  const auto inputs = prompt(1);
  std::vector<int64_t> tokens;
  Callbacks callbacks;
  callbacks.on_step = stream_tokens([&](int64_t token) {
    tokens.push_back(token);
    return tokens.size() < 5;
  });
  const auto output = generate(*model, inputs, config(), callbacks);
  EXPECT_EQ(output.steps, 5);
  EXPECT_TRUE(output.stopped.all().item<bool>());
  EXPECT_FALSE(output.cancelled);
  EXPECT_TRUE(torch::equal(torch::tensor(tokens), output.sequences[0].slice(0, kPrompt)));
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(StreamTokens, TakesOneRow) {
  const auto model = tiny_model();
  Callbacks callbacks;
  callbacks.on_step = stream_tokens([](int64_t) { return true; });
  EXPECT_EQ(error_of([&] { generate(*model, prompt(2), config(), callbacks); }),
            "stream_tokens: the batch must have one row, got 2");
  EXPECT_EQ(error_of([] { stream_tokens(nullptr); }),
            "stream_tokens: on_token must be a function, got none");
}

}  // namespace
}  // namespace mistral_ext::generation
