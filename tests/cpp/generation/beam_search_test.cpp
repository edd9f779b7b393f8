#include "mistral_ext/generation/beam_search.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "mistral_ext/generation/generate.h"
#include "models/tiny_model.h"
#include "ops/error_message.h"

namespace mistral_ext::generation {
namespace {

using models::MistralForCausalLM;
using models::tiny_config;
using models::tiny_model;
using ops::error_message;

constexpr int64_t kNew = 10;
constexpr int64_t kPrompt = 7;
constexpr int64_t kVocabulary = 61;

GenerateInputs prompt(int64_t batch = 2) {
  torch::manual_seed(1);
  GenerateInputs inputs;
  inputs.input_ids = torch::randint(3, kVocabulary, {batch, kPrompt}, torch::kLong);
  return inputs;
}

GenerationConfig new_tokens(int64_t count = kNew) {
  GenerationConfig config;
  config.max_new_tokens = count;
  return config;
}

BeamSearchConfig beams(int64_t num_beams, int64_t num_return_sequences = 1) {
  BeamSearchConfig config;
  config.num_beams = num_beams;
  config.num_return_sequences = num_return_sequences;
  return config;
}

// The log-probability of each new token, [batch, new], from one pass over all tokens.
torch::Tensor token_scores(MistralForCausalLM& model, const torch::Tensor& sequences) {
  const torch::NoGradGuard no_grad;
  models::ModelInputs inputs;
  inputs.input_ids = sequences;
  const auto scores = model.forward(inputs).logits.log_softmax(-1);
  return scores.slice(1, 0, -1)
      .gather(2, sequences.slice(1, 1).unsqueeze(-1))
      .squeeze(-1)
      .slice(1, kPrompt - 1);
}

TEST(BeamSearch, WithABeamForEveryTokenFindsTheBestPairs) {
  const auto model = tiny_model();
  const auto inputs = prompt(1);
  const auto output =
      beam_search(*model, inputs, new_tokens(2), beams(kVocabulary, /*num_return_sequences=*/5));
  const auto first = torch::arange(kVocabulary).repeat_interleave(kVocabulary).unsqueeze(1);
  const auto second = torch::arange(kVocabulary).repeat({kVocabulary}).unsqueeze(1);
  const auto all =
      torch::cat({inputs.input_ids.expand({kVocabulary * kVocabulary, kPrompt}), first, second}, 1);
  const auto [scores, order] = token_scores(*model, all).sum(1).topk(5);
  EXPECT_TRUE(torch::equal(output.sequences, all.index_select(0, order)));
  // Two orders of summation in fp32.
  EXPECT_TRUE(torch::allclose(output.sequences_scores, scores / 2, 1e-4, 1e-4));
}

TEST(BeamSearch, WithOneBeamIsGreedy) {
  for (const int64_t window : {0, 5}) {
    const auto model = tiny_model(tiny_config(window));
    const auto greedy = generate(*model, prompt(), new_tokens()).sequences;
    const auto output = beam_search(*model, prompt(), new_tokens(), beams(1));
    EXPECT_TRUE(torch::equal(output.sequences, greedy));
    EXPECT_EQ(output.steps, kNew);
  }
}

TEST(BeamSearch, ScoresAreThoseOfTheReturnedTokens) {
  for (const int64_t window : {0, 5}) {
    const auto model = tiny_model(tiny_config(window));
    auto search = beams(4, 4);
    search.length_penalty = 0.7;
    const auto output = beam_search(*model, prompt(), new_tokens(), search);
    const auto expected =
        token_scores(*model, output.sequences).sum(1) / std::pow(double{kNew}, 0.7);
    EXPECT_TRUE(torch::allclose(output.sequences_scores, expected, 1e-4, 1e-4));
    const auto by_prompt = output.sequences_scores.view({2, 4});
    EXPECT_TRUE(by_prompt.slice(1, 0, -1).ge(by_prompt.slice(1, 1)).all().item<bool>());
  }
}

TEST(BeamSearch, IndicesLeadFromTheScoresToEachToken) {
  const auto model = tiny_model();
  auto config = new_tokens();
  config.output_scores = true;
  const auto output = beam_search(*model, prompt(), config, beams(3, 3));
  const auto tokens = output.sequences.slice(1, kPrompt);
  auto sums = torch::zeros({6});
  for (int64_t step = 0; step < kNew; ++step) {
    const auto rows = output.scores[step].index_select(0, output.beam_indices.select(1, step));
    sums += rows.gather(1, tokens.slice(1, step, step + 1)).squeeze(1);
  }
  EXPECT_TRUE(torch::allclose(sums / kNew, output.sequences_scores, 1e-5, 1e-5));
}

TEST(BeamSearch, PaddingOnTheLeftChangesNoBeam) {
  const auto model = tiny_model();
  auto inputs = prompt(1);
  const auto alone = beam_search(*model, inputs, new_tokens(), beams(3, 2)).sequences;
  inputs.attention_mask = torch::ones({2, kPrompt + 3}, torch::kLong);
  inputs.attention_mask[0].slice(0, 0, 3).zero_();
  const auto padding = torch::zeros({1, 3}, torch::kLong);
  const auto other = torch::randint(3, kVocabulary, {1, kPrompt + 3}, torch::kLong);
  inputs.input_ids = torch::cat({torch::cat({padding, inputs.input_ids}, 1), other});
  const auto padded = beam_search(*model, inputs, new_tokens(), beams(3, 2)).sequences;
  EXPECT_TRUE(torch::equal(padded.slice(0, 0, 2).slice(1, 3), alone));
}

TEST(BeamSearch, WhatEndsIsFilledBehindItsEnd) {
  const auto model = tiny_model();
  const auto free = beam_search(*model, prompt(1), new_tokens(), beams(3, 3)).sequences;
  auto config = new_tokens();
  config.eos_token_ids = {free[0][kPrompt + 2].item<int64_t>()};
  config.pad_token_id = 0;
  auto search = beams(3, 3);
  search.length_penalty = -2.0;  // short ones first
  const auto output = beam_search(*model, prompt(1), config, search);
  const auto best = output.sequences[0];
  int64_t length = kPrompt;
  while (best[length++].item<int64_t>() != config.eos_token_ids[0]) {
  }
  EXPECT_TRUE(best.slice(0, length).eq(0).all().item<bool>());
  EXPECT_TRUE(output.beam_indices[0].slice(0, length - kPrompt).eq(-1).all().item<bool>());
  EXPECT_TRUE(output.beam_indices[0].slice(0, 0, length - kPrompt).ge(0).all().item<bool>());
}

TEST(BeamSearch, TheCallbackEndsContinuations) {
  const auto model = tiny_model();
  int64_t steps = 0;
  Callbacks callbacks;
  callbacks.on_step = [&](const Step& step) {
    ++steps;
    EXPECT_EQ(step.tokens.sizes(), (std::vector<int64_t>{2 * 2 * 3}));
    EXPECT_EQ(step.sequences.size(1), kPrompt + steps);
    EXPECT_TRUE(torch::equal(step.sequences.select(1, -1), step.tokens));
    return torch::full({2 * 2 * 3}, steps == 4, torch::kBool);
  };
  const auto output = beam_search(*model, prompt(), new_tokens(), beams(3), callbacks);
  EXPECT_EQ(output.steps, 4);
  EXPECT_EQ(output.sequences.size(1), kPrompt + 4);
}

TEST(BeamSearch, GoesOnFromACacheWithARowAPromptOrABeam) {
  const auto model = tiny_model();
  const auto expected = beam_search(*model, prompt(), new_tokens(), beams(3)).sequences;
  for (const bool row_a_beam : {false, true}) {
    cache::KVCache cache(model->config());
    models::ModelInputs begin;
    begin.input_ids = prompt().input_ids.slice(1, 0, 4);
    begin.cache = &cache;
    {
      const torch::NoGradGuard no_grad;
      model->forward(begin);
    }
    if (row_a_beam) cache.repeat_rows(3);
    auto inputs = prompt();
    inputs.cache = &cache;
    const auto output = beam_search(*model, inputs, new_tokens(), beams(3));
    EXPECT_TRUE(torch::equal(output.sequences, expected));
    EXPECT_EQ(cache.batch_size(), 6);
    EXPECT_EQ(cache.seen(), kPrompt + kNew - 1);
  }
}

// Whatever beam is continued, some row of the cache holds the keys of a fresh pass over it.
TEST(BeamSearch, CacheRowsFollowTheirBeams) {
  for (const int64_t window : {0, 5}) {
    const auto model = tiny_model(tiny_config(window));
    cache::KVCache cache(model->config());
    auto inputs = prompt();
    inputs.cache = &cache;
    auto config = new_tokens();
    config.do_sample = true;  // so that beams change places
    config.seed = 3;
    config.temperature = 3.0;
    int64_t compared = 0;
    Callbacks callbacks;
    callbacks.on_step = [&](const Step& step) {
      cache::KVCache fresh(model->config());
      models::ModelInputs again;
      again.input_ids = step.sequences.slice(1, 0, -1);
      again.cache = &fresh;
      model->forward(again);
      const auto expected = fresh.layer(1).keys().unsqueeze(1);
      const auto differences = (expected - cache.layer(1).keys()).abs().flatten(2).amax(-1);
      // fp32 sums of up to 80 products in another order, twice.
      EXPECT_LT(differences.amin(1).max().item<double>(), 1e-3);
      ++compared;
      return at::Tensor();
    };
    beam_search(*model, inputs, config, beams(4), callbacks);
    EXPECT_EQ(compared, kNew);
  }
}

TEST(BeamSearch, ASeedRepeatsTheDraws) {
  const auto model = tiny_model();
  auto config = new_tokens();
  config.do_sample = true;
  config.top_k = 20;
  config.top_p = 0.9;
  config.seed = 5;
  const auto once = beam_search(*model, prompt(), config, beams(3, 3)).sequences;
  EXPECT_TRUE(torch::equal(beam_search(*model, prompt(), config, beams(3, 3)).sequences, once));
  config.seed = 6;
  EXPECT_FALSE(torch::equal(beam_search(*model, prompt(), config, beams(3, 3)).sequences, once));
}

TEST(BeamSearch, AnInterruptionLeavesWholeTokensInTheCache) {
  const auto model = tiny_model();
  auto inputs = prompt();
  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  int64_t passes = 0;
  Callbacks callbacks;
  callbacks.check_interrupt = [&] {
    if (++passes == 4) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(beam_search(*model, inputs, new_tokens(), beams(3), callbacks), std::runtime_error);
  EXPECT_EQ(cache.layer(0).seen(), kPrompt + 3);
  EXPECT_EQ(cache.layer(1).seen(), kPrompt + 3);
}

TEST(BeamSearch, TellsOnceOfSequencesBeyondTheModelsLength) {
  auto short_config = tiny_config();
  short_config.max_position_embeddings = kPrompt + 2;
  const auto model = tiny_model(short_config);
  std::vector<int64_t> lengths;
  Callbacks callbacks;
  callbacks.on_overlength = [&](int64_t length) { lengths.push_back(length); };
  beam_search(*model, prompt(), new_tokens(), beams(2), callbacks);
  generate(*model, prompt(), new_tokens(), callbacks);
  EXPECT_EQ(lengths, (std::vector<int64_t>{kPrompt + 3, kPrompt + 3}));
  generate(*model, prompt(), new_tokens(3), callbacks);  // done when it gets there
  EXPECT_EQ(lengths.size(), 2);
}

TEST(BeamSearch, NamesTheSettingThatCannotWork) {
  const auto model = tiny_model();
  const auto error_of = [&](const BeamSearchConfig& search) {
    return error_message([&] { beam_search(*model, prompt(), new_tokens(), search); });
  };
  EXPECT_EQ(error_of(beams(0)), "beam_search: num_beams must be positive, got 0");
  EXPECT_EQ(error_of(beams(3, 4)),
            "beam_search: num_return_sequences must be in [1, num_beams = 3], got 4");
  auto search = beams(2);
  search.length_penalty = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(error_of(search), "beam_search: length_penalty must be finite, got nan");
  search.length_penalty = 1e6;
  EXPECT_EQ(error_of(search),
            "beam_search: length_penalty must keep the length to its power finite, got 1000000 at "
            "length 2");
  Callbacks callbacks;
  callbacks.on_step = [](const Step&) { return torch::ones({2}, torch::kBool); };
  EXPECT_EQ(
      error_message([&] { beam_search(*model, prompt(), new_tokens(), beams(2), callbacks); }),
      "beam_search: on_step must return bool [8], got Bool [2]");
}

}  // namespace
}  // namespace mistral_ext::generation
