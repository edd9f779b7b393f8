#include "mistral_ext/models/mistral_for_causal_lm.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/tiny_model.h"

namespace mistral_ext::models {
namespace {

at::Tensor ids(int64_t batch, int64_t seq) {
  torch::manual_seed(1);
  return torch::randint(0, 61, {batch, seq});
}

at::Tensor logits_of(MistralForCausalLM& model, const ModelInputs& inputs) {
  const torch::NoGradGuard no_grad;
  return model.forward(inputs).logits;
}

// Products over the cached keys are summed in another order than in one pass; the logits are of
// order 10.
constexpr double kTolerance = 1e-3;

TEST(MistralForCausalLM, NamesItsParametersAsHuggingFaceDoes) {
  const auto model = tiny_model();
  const auto state = state_dict(*model);
  EXPECT_EQ(state.size(), 2 * 9 + 3);
  EXPECT_TRUE(state.contains("model.layers.1.self_attn.q_proj.weight"));
  EXPECT_TRUE(state.contains("model.embed_tokens.weight"));
  EXPECT_TRUE(state.contains("lm_head.weight"));
  EXPECT_EQ(model->named_parameters().size(), state.size());
}

class Chunks : public testing::TestWithParam<int64_t> {};

TEST_P(Chunks, GiveTheLogitsOfOnePass) {
  const auto model = tiny_model(tiny_config(GetParam()));
  ModelInputs whole;
  whole.input_ids = ids(2, 23);
  const auto expected = logits_of(*model, whole);
  for (const auto& chunks : std::vector<std::vector<int64_t>>{
           std::vector<int64_t>(23, 1), {23}, {5, 1, 1, 9, 7}, {22, 1}}) {
    cache::KVCache cache(model->config());
    std::vector<at::Tensor> parts;
    int64_t at = 0;
    for (const int64_t count : chunks) {
      ModelInputs inputs;
      inputs.input_ids = whole.input_ids.narrow(1, at, count);
      inputs.cache = &cache;
      parts.push_back(logits_of(*model, inputs));
      at += count;
    }
    EXPECT_TRUE(torch::allclose(torch::cat(parts, 1), expected, kTolerance, kTolerance));
  }
}

INSTANTIATE_TEST_SUITE_P(Windows, Chunks, testing::Values(0, 1, 4, 22, 23, 24));

TEST(MistralForCausalLM, KeepsTheLogitsThatAreAskedFor) {
  const auto model = tiny_model();
  ModelInputs inputs;
  inputs.input_ids = ids(2, 7);
  const auto all = logits_of(*model, inputs);
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(torch::allclose(model->forward(inputs, 2).logits, all.narrow(1, 5, 2), 1e-4, 1e-4));
  EXPECT_EQ(model->forward(inputs, 99).logits.size(1), 7);
  EXPECT_TRUE(torch::allclose(model->forward(inputs, torch::tensor({0, 3})).logits,
                              all.index_select(1, torch::tensor({0, 3})),
                              1e-4,
                              1e-4));
}

TEST(MistralForCausalLM, SplitsPackedSequencesWherePositionsStartAgain) {
  const auto model = tiny_model();
  const auto both = ids(1, 9);
  ModelInputs packed;
  packed.input_ids = both;
  packed.position_ids = torch::tensor({{0, 1, 2, 3, 0, 1, 2, 3, 4}});
  const auto together = logits_of(*model, packed);
  ModelInputs second;
  second.input_ids = both.narrow(1, 4, 5);
  EXPECT_TRUE(
      torch::allclose(together.narrow(1, 4, 5), logits_of(*model, second), kTolerance, kTolerance));
}

TEST(MistralForCausalLM, ATiedHeadMayBeAbsentFromTheState) {
  auto config = tiny_config();
  config.tie_word_embeddings = true;
  const auto model = std::make_shared<MistralForCausalLM>(config);
  auto state = state_dict(*tiny_model());
  state.erase("lm_head.weight");
  load_parameters(*model, state);
  EXPECT_FALSE(state_dict(*model).contains("lm_head.weight"));
  ModelInputs inputs;
  inputs.input_ids = ids(1, 3);
  EXPECT_EQ(logits_of(*model, inputs).size(2), 61);
}

TEST(MistralForCausalLM, ATiedHeadIsOneParameterToAnOptimiser) {
  auto config = tiny_config();
  config.tie_word_embeddings = true;
  const auto model = std::make_shared<MistralForCausalLM>(config);
  auto state = state_dict(*tiny_model());
  state.erase("lm_head.weight");
  load_parameters(*model, state);
  const auto parameters = model->parameters();
  EXPECT_EQ(parameters.size(), state.size());
  for (const auto& parameter : parameters) parameter.requires_grad_();
  const auto& embedding = model->model().embed_tokens().weight();
  const auto before = embedding.detach().clone();
  torch::optim::SGD optimiser(parameters, torch::optim::SGDOptions(0.5));
  ModelInputs inputs;
  inputs.input_ids = ids(1, 3);
  model->forward(inputs).logits.sum().backward();
  optimiser.step();
  EXPECT_TRUE(torch::equal(embedding, before - 0.5 * embedding.grad()));
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(MistralForCausalLM, NamesTheInputThatDoesNotFit) {
  const auto model = tiny_model();
  const auto message = [&](const std::function<void(ModelInputs&)>& change) {
    ModelInputs inputs;
    inputs.input_ids = ids(2, 5);
    change(inputs);
    return message_of([&] { logits_of(*model, inputs); });
  };
  EXPECT_EQ(message([](auto& in) { in.input_ids[0][0] = 61; }),
            "input_ids must be in [0, 61), got 61");
  EXPECT_EQ(message([](auto& in) { in.input_ids[0][0] = -1; }),
            "input_ids must be in [0, 61), got -1");
  EXPECT_EQ(message([](auto& in) { in.input_ids = torch::zeros({0, 5}, torch::kLong); }),
            "input_ids must have at least one row and one token, got shape [0, 5]");
  EXPECT_EQ(message([](auto& in) { in.input_ids = torch::zeros({2, 0}, torch::kLong); }),
            "input_ids must have at least one row and one token, got shape [2, 0]");
  EXPECT_EQ(message([](auto& in) { in.input_ids = torch::zeros({2, 5}); }),
            "input_ids must be int64 or int32, got Float");
  EXPECT_EQ(message([](auto& in) { in.inputs_embeds = torch::zeros({2, 5, 48}); }),
            "forward: exactly one of input_ids and inputs_embeds must be given, got both");
  EXPECT_EQ(message([](auto& in) { in.attention_mask = torch::ones({2, 4}); }),
            "attention_mask must have shape [2, 5] (batch, 0 cached and 5 new tokens), got [2, 4]");
  EXPECT_EQ(message([](auto& in) { in.position_ids = torch::zeros({2, 4}, torch::kLong); }),
            "position_ids must have shape [2 or 1, 5], got [2, 4]");
}

TEST(MistralForCausalLM, RefusesACacheOfAnotherModelOrBatchAndLeavesItAlone) {
  const auto model = tiny_model();
  cache::KVCache other(std::vector<int64_t>{0, 0, 0});
  ModelInputs inputs;
  inputs.input_ids = ids(2, 5);
  inputs.cache = &other;
  EXPECT_EQ(message_of([&] { logits_of(*model, inputs); }),
            "past_key_values must have num_hidden_layers = 2 layers, got 3");
  cache::KVCache windowed(std::vector<int64_t>{0, 4});
  inputs.cache = &windowed;
  EXPECT_EQ(message_of([&] { logits_of(*model, inputs); }),
            "past_key_values must keep this model's window 0 in layer 1, got 4");
  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  logits_of(*model, inputs);
  inputs.input_ids = ids(3, 1);
  EXPECT_EQ(message_of([&] { logits_of(*model, inputs); }),
            "past_key_values must hold a batch of 3, got 2");
  EXPECT_EQ(cache.seen(), 5);
}

TEST(MistralForCausalLM, LeavesTheCacheAloneWhereAnArgumentDoesNotFit) {
  const auto model = tiny_model();
  cache::KVCache cache(model->config());
  const auto message = [&](const std::function<void(ModelInputs&)>& change,
                           const LogitsToKeep& keep = 0) {
    ModelInputs inputs;
    inputs.input_ids = ids(2, 5);
    inputs.cache = &cache;
    change(inputs);
    return message_of([&] { model->forward(inputs, keep); });
  };
  const auto nothing = [](ModelInputs&) {};
  EXPECT_EQ(message([](auto& in) { in.attention_mask = torch::ones({2, 3, 5, 5}); }),
            "attention_mask of 4 dimensions must have shape [2, 4, 5, keys] or 1 in their place, "
            "got [2, 3, 5, 5]");
  EXPECT_EQ(message([](auto& in) { in.attention_mask = torch::ones({2, 1, 5, 5}, torch::kLong); }),
            "attention_mask of 4 dimensions must be bool or floating point, got Long");
  EXPECT_EQ(message([](auto& in) { in.qk_mask = torch::ones({2, 3, 5, 5}, torch::kBool); }),
            "qk_mask must have shape [2 or 1, 4 or 1, 5, 5] (0 cached and 5 new keys), got [2, 3, "
            "5, 5]");
  EXPECT_EQ(message(nothing, -1), "logits_to_keep must not be negative, got -1");
  EXPECT_EQ(message(nothing, torch::tensor({0, 99})), "logits_to_keep must be in [0, 5), got 99");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(cache.layer(i).seen(), 0);
}

TEST(LoadParameters, LeavesTheModelAsItWasWhenOneTensorDoesNotFit) {
  const auto model = tiny_model();
  const auto before = model->model().embed_tokens().weight();
  auto state = state_dict(*tiny_model());
  state["model.norm.weight"] = torch::ones({47});
  EXPECT_EQ(message_of([&] { load_parameters(*model, state); }),
            "load: model.norm.weight must have shape [48], got [47]");
  state.erase("model.norm.weight");
  EXPECT_EQ(message_of([&] { load_parameters(*model, state); }),
            "load: model.norm.weight is missing");
  state["model.norm.weight"] = torch::ones({48}, torch::kDouble);
  EXPECT_EQ(message_of([&] { load_parameters(*model, state); }),
            "load: model.norm.weight must be Float on cpu as the embedding, got Double on cpu");
  state["model.norm.weight"] = torch::ones({48});
  state["model.nonsense"] = torch::ones({1});
  EXPECT_EQ(message_of([&] { load_parameters(*model, state); }),
            "load: model.nonsense is not a parameter of this model");
  EXPECT_TRUE(model->model().embed_tokens().weight().is_same(before));
}

TEST(MistralForCausalLM, TrainsWithTorchsOptimiser) {
  const auto model = tiny_model();
  for (auto& parameter : model->parameters()) parameter.requires_grad_();
  torch::optim::AdamW optimiser(model->parameters(), torch::optim::AdamWOptions(1e-2));
  ModelInputs inputs;
  inputs.input_ids = ids(2, 8);
  std::vector<double> losses;
  for (int step = 0; step < 8; ++step) {
    optimiser.zero_grad();
    const auto logits = model->forward(inputs).logits.narrow(1, 0, 7).reshape({-1, 61});
    const auto loss =
        torch::nn::functional::cross_entropy(logits, inputs.input_ids.narrow(1, 1, 7).reshape(-1));
    loss.backward();
    optimiser.step();
    losses.push_back(loss.item<double>());
  }
  EXPECT_LT(losses.back(), 0.5 * losses.front());
}

}  // namespace
}  // namespace mistral_ext::models
