// The loop around steps that stay on a device, with steps of the CPU in their place: the same
// results as without.

#include "mistral_ext/generation/device_steps.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <memory>
#include <stop_token>
#include <utility>
#include <vector>

#include "mistral_ext/generation/beam_search.h"
#include "mistral_ext/generation/generate.h"
#include "models/tiny_model.h"

namespace mistral_ext::generation {
namespace {

using models::MistralForCausalLM;
using models::StepRows;
using models::tiny_config;
using models::tiny_model;
using models::TokenSteps;
using models::TokenStepsPool;

constexpr int64_t kNew = 24;
constexpr int64_t kMostOfARun = 7;

int64_t runs = 0;
int64_t tokens_made = 0;
int64_t steps_made = 0;
int64_t logits_made = 0;

// What a device does, a model's pass at a time.
class HostSteps : public TokenSteps {
 public:
  explicit HostSteps(MistralForCausalLM& model) : model_(model) {}

  bool serves(const cache::KVCache& cache, const StepRows&) const override {
    return cache.layer(0).is_plain();
  }

  torch::Tensor logits(cache::KVCache& cache, const StepRows& rows) override {
    ++logits_made;
    return fed(cache, rows);
  }

  torch::Tensor run(cache::KVCache& cache,
                    StepRows& rows,
                    int64_t count,
                    const std::function<bool()>& go_on) override {
    ++runs;
    std::vector<torch::Tensor> made;
    for (int64_t i = 0; i < std::min(count, kMostOfARun) && (i == 0 || go_on()); ++i) {
      if (std::ranges::all_of(rows.stopped, [](bool row) { return row; })) break;
      auto tokens = fed(cache, rows).argmax(-1);
      for (int64_t& position : rows.positions) ++position;
      for (size_t row = 0; row < rows.stopped.size(); ++row) {
        const auto at = tokens[static_cast<int64_t>(row)];
        if (rows.stopped[row]) at.fill_(rows.pad_token_id);
        const auto& ends = rows.eos_token_ids;
        rows.stopped[row] =
            rows.stopped[row] || std::ranges::find(ends, at.item<int64_t>()) != ends.end();
      }
      rows.tokens = tokens;
      made.push_back(tokens);
      ++tokens_made;
    }
    return torch::stack(made, 1);
  }

 private:
  torch::Tensor fed(cache::KVCache& cache, const StepRows& rows) {
    const auto visible =
        torch::arange(cache.seen() + 1) >= torch::tensor(rows.padding).unsqueeze(1);
    models::ModelInputs inputs;
    inputs.input_ids = rows.tokens.unsqueeze(1);
    inputs.attention_mask = visible;
    inputs.position_ids = torch::tensor(rows.positions).unsqueeze(1);
    inputs.cache = &cache;
    return model_.forward(inputs, /*logits_to_keep=*/1).logits.select(1, 0);
  }

  MistralForCausalLM& model_;
};

class StepsOfADevice : public testing::Test {
 protected:
  void TearDown() override { TokenStepsPool::set_factory(nullptr); }

  static void use() {
    runs = 0;
    tokens_made = 0;
    steps_made = 0;
    logits_made = 0;
    TokenStepsPool::set_factory(
        [](MistralForCausalLM& model, int64_t) -> std::unique_ptr<TokenSteps> {
          ++steps_made;
          return std::make_unique<HostSteps>(model);
        });
  }

  static GenerateInputs prompt(int64_t batch) {
    torch::manual_seed(1);
    GenerateInputs inputs;
    inputs.input_ids = torch::randint(3, 61, {batch, 9}, torch::kLong);
    return inputs;
  }

  // Rows that begin with 0, 1, 2, ... tokens of padding.
  static GenerateInputs padded_prompt(int64_t batch) {
    auto inputs = prompt(batch);
    inputs.attention_mask = torch::ones({batch, 9}, torch::kLong);
    for (int64_t row = 0; row < batch; ++row) inputs.attention_mask[row].narrow(0, 0, row).zero_();
    return inputs;
  }

  static GenerationConfig greedy() {
    GenerationConfig config;
    config.max_new_tokens = kNew;
    return config;
  }
};

TEST_F(StepsOfADevice, MakeAllTokensButTheFirst) {
  for (const int64_t window : {0, 5}) {
    const auto model = tiny_model(tiny_config(window));
    TokenStepsPool::set_factory(nullptr);
    const auto wanted = generate(*model, prompt(2), greedy());
    use();
    for (int turn = 0; turn < 2; ++turn) {
      const auto output = generate(*model, prompt(2), greedy());
      EXPECT_TRUE(torch::equal(output.sequences, wanted.sequences));
      EXPECT_EQ(output.steps, kNew);
    }
    EXPECT_EQ(tokens_made, 2 * (kNew - 1));
  }
}

TEST_F(StepsOfADevice, EndRowsAndPadThem) {
  const auto model = tiny_model();
  const auto free = generate(*model, prompt(3), greedy()).sequences;
  auto config = greedy();
  config.eos_token_ids = {free[0][12].item<int64_t>(), free[1][15].item<int64_t>(), 1000};
  config.pad_token_id = 2;
  const auto wanted = generate(*model, prompt(3), config);
  use();
  const auto output = generate(*model, prompt(3), config);
  EXPECT_TRUE(torch::equal(output.sequences, wanted.sequences));
  EXPECT_TRUE(torch::equal(output.stopped, wanted.stopped));
  EXPECT_EQ(output.steps, wanted.steps);
}

TEST_F(StepsOfADevice, LeavePaddingOnTheLeftAlone) {
  for (const int64_t window : {0, 5}) {
    const auto model = tiny_model(tiny_config(window));
    auto inputs = padded_prompt(3);
    TokenStepsPool::set_factory(nullptr);
    const auto wanted = generate(*model, inputs, greedy());
    inputs.position_ids = torch::arange(20, 29).unsqueeze(0);
    const auto far = generate(*model, inputs, greedy());
    use();
    EXPECT_TRUE(torch::equal(generate(*model, inputs, greedy()).sequences, far.sequences));
    inputs.position_ids = torch::Tensor();
    EXPECT_TRUE(torch::equal(generate(*model, inputs, greedy()).sequences, wanted.sequences));
    EXPECT_EQ(tokens_made, 2 * (kNew - 1));
  }
}

TEST_F(StepsOfADevice, AreNotAskedWherePlacesWithinAPromptAreHidden) {
  const auto model = tiny_model();
  auto inputs = padded_prompt(2);
  inputs.attention_mask[0][4] = 0;
  const auto wanted = generate(*model, inputs, greedy()).sequences;
  use();
  EXPECT_TRUE(torch::equal(generate(*model, inputs, greedy()).sequences, wanted));
  EXPECT_EQ(runs + logits_made, 0);
}

TEST_F(StepsOfADevice, ShowACallbackEveryToken) {
  const auto model = tiny_model();
  const auto seen_by = [&](const GenerationConfig& config) {
    std::vector<torch::Tensor> seen;
    Callbacks callbacks;
    callbacks.on_step = [&](const Step& step) {
      seen.push_back(step.tokens.clone());
      EXPECT_TRUE(torch::equal(step.sequences.select(1, -1), step.tokens));
      // The second row, without an end-of-sequence token: it goes on to the end.
      return seen.size() == 5 ? torch::tensor({false, true}) : torch::Tensor();
    };
    seen.push_back(generate(*model, prompt(2), config, callbacks).sequences);
    return seen;
  };
  auto ending = greedy();
  ending.eos_token_ids = {1000};
  ending.pad_token_id = 2;
  for (const auto& config : {greedy(), ending}) {
    TokenStepsPool::set_factory(nullptr);
    const auto wanted = seen_by(config);
    use();
    const auto seen = seen_by(config);
    ASSERT_EQ(seen.size(), wanted.size());
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_TRUE(torch::equal(seen[i], wanted[i]));
    EXPECT_EQ(runs, kNew - 1);
  }
}

TEST_F(StepsOfADevice, StopWhenAskedAndGoOnFromTheCache) {
  const auto model = tiny_model();
  const auto wanted = generate(*model, prompt(1), greedy()).sequences;
  use();
  cache::KVCache cache(model->config());
  auto inputs = prompt(1);
  inputs.cache = &cache;
  std::stop_source source;
  Callbacks callbacks;
  callbacks.stop = source.get_token();
  int64_t passes = 0;
  callbacks.check_interrupt = [&] {
    if (++passes == 5) source.request_stop();
  };
  const auto first = generate(*model, inputs, greedy(), callbacks);
  EXPECT_TRUE(first.cancelled);
  EXPECT_LT(first.steps, kNew);
  EXPECT_EQ(cache.seen(), first.sequences.size(1) - 1);
  auto rest = greedy();
  rest.max_new_tokens = kNew - first.steps;
  inputs.input_ids = first.sequences;
  EXPECT_TRUE(torch::equal(generate(*model, inputs, rest).sequences, wanted));
}

TEST_F(StepsOfADevice, AreMadeAnewForAModelOfAnotherDtype) {
  const auto model = tiny_model();
  use();
  for (const auto& [dtype, all] : std::vector<std::pair<torch::Dtype, int64_t>>{
           {torch::kFloat, 1}, {torch::kFloat, 1}, {torch::kDouble, 2}, {torch::kFloat, 3}}) {
    model->to(dtype);
    generate(*model, prompt(2), greedy());
    EXPECT_EQ(steps_made, all);
  }
}

TEST_F(StepsOfADevice, GiveLogitsWhereScoresAreWantedOrChanged) {
  const auto model = tiny_model();
  std::vector<GenerationConfig> configs(4, greedy());
  configs[0].do_sample = true;
  configs[1].repetition_penalty = 1.5;
  configs[2].output_logits = true;
  configs[3].min_new_tokens = 4;
  configs[3].eos_token_ids = {7};
  configs[3].pad_token_id = 2;
  for (auto& config : configs) {
    config.seed = 3;
    TokenStepsPool::set_factory(nullptr);
    const auto wanted = generate(*model, padded_prompt(2), config);
    use();
    const auto output = generate(*model, padded_prompt(2), config);
    EXPECT_TRUE(torch::equal(output.sequences, wanted.sequences));
    EXPECT_EQ(runs, 0);
    EXPECT_EQ(logits_made, output.steps - 1);
  }
}

TEST_F(StepsOfADevice, GiveLogitsToBeams) {
  const auto model = tiny_model();
  BeamSearchConfig config;
  config.num_beams = 3;
  const auto wanted = beam_search(*model, padded_prompt(2), greedy(), config);
  use();
  const auto output = beam_search(*model, padded_prompt(2), greedy(), config);
  EXPECT_TRUE(torch::equal(output.sequences, wanted.sequences));
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(logits_made, kNew - 1);
}

}  // namespace
}  // namespace mistral_ext::generation
