#include "mistral_ext/generation/generate.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <stdexcept>

#include "models/tiny_model.h"

namespace mistral_ext::generation {
namespace {

using models::MistralForCausalLM;
using models::tiny_config;
using models::tiny_model;

constexpr int64_t kNew = 12;

GenerateInputs prompt(int64_t batch = 2, int64_t length = 9) {
  torch::manual_seed(1);
  GenerateInputs inputs;
  inputs.input_ids = torch::randint(3, 61, {batch, length}, torch::kLong);
  return inputs;
}

GenerationConfig greedy() {
  GenerationConfig config;
  config.max_new_tokens = kNew;
  return config;
}

// Every token from a pass over all tokens before it, with no cache.
torch::Tensor without_cache(MistralForCausalLM& model, torch::Tensor ids) {
  const torch::NoGradGuard no_grad;
  for (int64_t i = 0; i < kNew; ++i) {
    models::ModelInputs inputs;
    inputs.input_ids = ids;
    const auto logits = model.forward(inputs, /*logits_to_keep=*/1).logits;
    ids = torch::cat({ids, logits.select(1, 0).argmax(-1, /*keepdim=*/true)}, 1);
  }
  return ids;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(Generate, GreedyEqualsAPassOverAllTokensForEachToken) {
  for (const int64_t window : {0, 5}) {
    const auto model = tiny_model(tiny_config(window));
    const auto inputs = prompt();
    const auto output = generate(*model, inputs, greedy());
    EXPECT_TRUE(torch::equal(output.sequences, without_cache(*model, inputs.input_ids)));
    EXPECT_EQ(output.steps, kNew);
    EXPECT_FALSE(output.stopped.any().item<bool>());
  }
}

TEST(Generate, PaddingOnTheLeftChangesNoToken) {
  const auto model = tiny_model();
  auto inputs = prompt(1, 4);
  const auto alone = generate(*model, inputs, greedy()).sequences;
  inputs.attention_mask = torch::tensor({{0, 0, 0, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1}});
  inputs.input_ids =
      torch::cat({torch::cat({torch::zeros({1, 3}, torch::kLong), inputs.input_ids}, 1),
                  prompt(1, 7).input_ids});
  const auto padded = generate(*model, inputs, greedy()).sequences;
  EXPECT_TRUE(torch::equal(padded[0].slice(0, 3), alone[0]));
}

TEST(Generate, RowsStopAtAnyEndAndAreFilledWithPadding) {
  const auto model = tiny_model();
  const auto inputs = prompt();
  const auto free = generate(*model, inputs, greedy()).sequences;
  auto config = greedy();
  config.eos_token_ids = {free[0][9 + 2].item<int64_t>(), free[1][9 + 6].item<int64_t>()};
  config.pad_token_id = 0;
  const auto output = generate(*model, inputs, config);
  EXPECT_TRUE(output.stopped.all().item<bool>());
  for (int64_t row = 0; row < 2; ++row) {
    bool ended = false;
    for (int64_t i = 9; i < output.sequences.size(1); ++i) {
      const auto token = output.sequences[row][i].item<int64_t>();
      EXPECT_EQ(token, ended ? 0 : free[row][i].item<int64_t>());
      ended = ended || std::ranges::count(config.eos_token_ids, token) > 0;
    }
    EXPECT_TRUE(ended);
  }
  EXPECT_LT(output.steps, kNew);
}

TEST(Generate, TheCallbackStopsRows) {
  const auto model = tiny_model();
  const auto inputs = prompt();
  const auto free = generate(*model, inputs, greedy()).sequences;
  int64_t step = 0;
  Callbacks callbacks;
  callbacks.on_step = [&](const Step& now) {
    EXPECT_TRUE(torch::equal(now.tokens, free.select(1, 9 + step)));
    EXPECT_TRUE(torch::equal(now.sequences, free.slice(1, 0, 10 + step)));
    ++step;
    return torch::tensor({true, step == 4});
  };
  const auto output = generate(*model, inputs, greedy(), callbacks);
  EXPECT_EQ(output.steps, 4);
  EXPECT_TRUE(torch::equal(output.sequences, free.slice(1, 0, 13)));
}

TEST(Generate, AnInterruptionLeavesWholeTokensInTheCache) {
  const auto model = tiny_model();
  auto inputs = prompt();
  const auto expected = generate(*model, inputs, greedy()).sequences;
  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  int64_t passes = 0;
  Callbacks callbacks;
  callbacks.check_interrupt = [&] {
    if (++passes == 5) throw std::runtime_error("interrupted");
  };
  auto config = greedy();
  config.prefill_chunk_size = 4;
  EXPECT_THROW(generate(*model, inputs, config, callbacks), std::runtime_error);
  // Three chunks of the prompt and two tokens.
  EXPECT_EQ(cache.layer(0).seen(), 9 + 2);
  EXPECT_EQ(cache.layer(1).seen(), 9 + 2);
  cache.reset();
  EXPECT_TRUE(torch::equal(generate(*model, inputs, config).sequences, expected));
}

TEST(Generate, RecordsNoGradientsAndReturnsOrdinaryTensors) {
  const auto model = tiny_model();
  for (auto& parameter : model->parameters()) parameter.requires_grad_(true);
  auto inputs = prompt();
  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  auto config = greedy();
  config.output_logits = true;
  const auto output = generate(*model, inputs, config);
  EXPECT_FALSE(output.logits[0].requires_grad());
  EXPECT_FALSE(output.logits[0].is_inference());
  EXPECT_FALSE(cache.layer(0).keys().requires_grad());
  EXPECT_FALSE(cache.layer(0).keys().is_inference());
  EXPECT_TRUE(torch::GradMode::is_enabled());
}

TEST(Generate, NamesTheSettingThatCannotWork) {
  const auto model = tiny_model();
  auto config = greedy();
  config.do_sample = true;
  config.top_p = 1.5;
  EXPECT_EQ(error_of([&] { generate(*model, prompt(), config); }),
            "generate: top_p must be in (0, 1], got 1.5");
  config = greedy();
  config.eos_token_ids = {2};
  EXPECT_EQ(error_of([&] { generate(*model, prompt(), config); }),
            "generate: pad_token_id must be given with eos_token_ids and a batch of 2, got none");
  EXPECT_EQ(error_of([&] { generate(*model, GenerateInputs(), greedy()); }),
            "generate: input_ids or inputs_embeds must be given, got neither");
  auto inputs = prompt();
  inputs.input_ids[0][0] = 61;
  EXPECT_EQ(error_of([&] { generate(*model, inputs, greedy()); }),
            "generate: input_ids must be in [0, 61), got 61");
  MistralForCausalLM empty(tiny_config());
  EXPECT_EQ(error_of([&] { generate(empty, prompt(), greedy()); }),
            "generate: model must have its weights, got parameters on the meta device");
}

}  // namespace
}  // namespace mistral_ext::generation
