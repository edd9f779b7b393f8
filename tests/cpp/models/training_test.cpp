// What a C++ program trains with: the loss, torch::nn::Module's functions and torch::optim.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "io/temporary_folder.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/save_pretrained.h"
#include "models/tiny_model.h"

namespace mistral_ext::models {
namespace {

using Model = std::shared_ptr<MistralForCausalLM>;

Model trainable(const MistralConfig& config = tiny_config()) {
  auto model = tiny_model(config);
  for (auto& parameter : model->parameters()) parameter.requires_grad_();
  return model;
}

Model tied() {
  auto config = tiny_config();
  config.tie_word_embeddings = true;
  auto state = state_dict(*tiny_model());
  state.erase("lm_head.weight");
  auto model = std::make_shared<MistralForCausalLM>(config);
  load_parameters(*model, state);
  for (auto& parameter : model->parameters()) parameter.requires_grad_();
  return model;
}

ModelInputs batch() {
  torch::manual_seed(1);
  ModelInputs inputs;
  inputs.input_ids = torch::randint(0, 61, {2, 8}, torch::kLong);
  return inputs;
}

torch::Tensor labels() {
  auto labels = batch().input_ids;
  labels[0].slice(0, 0, 3).fill_(-100);
  return labels;
}

// Hugging Face's ForCausalLMLoss, operation for operation.
torch::Tensor reference(MistralForCausalLM& model, torch::Tensor labels, double items = 0) {
  const auto logits = model.forward(batch()).logits.to(torch::kFloat);
  labels = torch::constant_pad_nd(labels, {0, 1}, -100).slice(1, 1).reshape(-1);
  const auto sum = torch::nn::functional::cross_entropy(
      logits.view({-1, 61}),
      labels,
      torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
  return sum / (items > 0 ? items : labels.ne(-100).sum().item<double>());
}

// Rounding of fp32 sums over 61 logits and 16 positions in another order.
constexpr double kRelative = 1e-5;
constexpr double kAbsolute = 1e-5;

TEST(Loss, IsHuggingFacesWithItsGradients) {
  const auto model = trainable();
  for (const int64_t items : {0, 5}) {
    LossOptions options;
    if (items > 0) options.num_items_in_batch = items;
    const auto loss = model->loss(batch(), labels(), options);
    const auto expected = reference(*model, labels(), static_cast<double>(items));
    EXPECT_EQ(loss.dim(), 0);
    EXPECT_TRUE(torch::allclose(loss, expected, kRelative, kAbsolute));
    const auto gradients = torch::autograd::grad({loss}, model->parameters());
    const auto references = torch::autograd::grad({expected}, model->parameters());
    for (size_t i = 0; i < gradients.size(); ++i) {
      const double scale = references[i].abs().max().item<double>();
      EXPECT_TRUE(torch::allclose(gradients[i], references[i], 1e-4, 1e-5 * scale)) << i;
    }
  }
}

TEST(Loss, TakesAnotherIgnoredLabelAndNeedsNoGradients) {
  const auto model = tiny_model();
  auto other = labels();
  other.masked_fill_(other == -100, 60);
  auto same = labels();
  same.masked_fill_(other == 60, -100);
  const auto loss = model->loss(batch(), other, {.ignore_index = 60});
  EXPECT_FALSE(loss.requires_grad());
  EXPECT_TRUE(torch::equal(loss, model->loss(batch(), same)));
}

TEST(Loss, OfNoLabelIsNaNAsHuggingFaces) {
  const auto model = tiny_model();
  EXPECT_TRUE(model->loss(batch(), torch::full({2, 8}, -100, torch::kLong)).isnan().item<bool>());
}

TEST(Loss, IsFp32ForAModelOf16Bits) {
  const auto model = tiny_model();
  model->to(torch::kBFloat16);
  EXPECT_EQ(model->loss(batch(), labels()).scalar_type(), torch::kFloat);
}

TEST(Loss, GivesTheSameGradientsWithCheckpointedLayers) {
  const auto model = trainable();
  auto inputs = batch();
  const auto expected = torch::autograd::grad({model->loss(inputs, labels())}, model->parameters());
  inputs.checkpointed_layers = {true, true};
  const auto found = torch::autograd::grad({model->loss(inputs, labels())}, model->parameters());
  for (size_t i = 0; i < found.size(); ++i) {
    // A checkpointed layer adds its output to the residual stream before the next norm, not with
    // it.
    const double scale = expected[i].abs().max().item<double>();
    EXPECT_TRUE(torch::allclose(found[i], expected[i], 1e-4, 1e-5 * scale)) << i;
  }
}

TEST(Loss, NamesTheLabelsThatDoNotFit) {
  const auto model = tiny_model();
  const auto message = [&](const torch::Tensor& labels, const LossOptions& options = {}) {
    try {
      model->loss(batch(), labels, options);
    } catch (const c10::ValueError& error) {
      return std::string(error.what_without_backtrace());
    } catch (const c10::IndexError& error) {
      return std::string(error.what_without_backtrace());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message(torch::zeros({2, 7}, torch::kLong)),
            "loss: labels must have shape [2, 8], got [2, 7]");
  EXPECT_EQ(message(torch::zeros({2, 8})), "loss: labels must be int64, got Float");
  EXPECT_EQ(message(torch::Tensor()), "loss: labels must be int64, got none");
  EXPECT_EQ(message(labels(), {.num_items_in_batch = 0}),
            "loss: num_items_in_batch must be positive, got 0");
  EXPECT_EQ(message(torch::full({2, 8}, 61, torch::kLong)),
            "linear_cross_entropy: labels must be in [0, 61) or ignore_index, got 61");
}

TEST(Training, OfATiedHeadUpdatesOneParameter) {
  const auto model = tied();
  EXPECT_EQ(model->parameters().size(), 2 * 9 + 2);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-2));
  model->train();
  std::vector<double> losses;
  for (int step = 0; step < 8; ++step) {
    optimizer.zero_grad();
    const auto loss = model->loss(batch(), labels());
    loss.backward();
    torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0);
    optimizer.step();
    losses.push_back(loss.item<double>());
  }
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  const auto modules = weighted_modules(*model);
  EXPECT_TRUE(modules.at("lm_head.weight")
                  ->weight()
                  .is_same(modules.at("model.embed_tokens.weight")->weight()));
}

TEST(Training, GradientsAreClippedAndSetToNothing) {
  const auto model = trainable();
  model->loss(batch(), labels()).backward();
  torch::nn::utils::clip_grad_norm_(model->parameters(), 0.5);
  double squares = 0;
  for (const auto& parameter : model->parameters()) {
    squares += parameter.grad().pow(2).sum().item<double>();
  }
  EXPECT_NEAR(std::sqrt(squares), 0.5, 1e-4);
  model->zero_grad();
  for (const auto& parameter : model->parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST(Training, ToAnotherDtypeKeepsTheParametersAndTheTie) {
  for (const auto& model : {trainable(), tied()}) {
    const auto before = model->parameters();
    const auto expected = model->forward(batch()).logits.to(torch::kDouble);
    model->to(torch::kDouble);
    EXPECT_EQ(model->dtype(), torch::kDouble);
    const auto after = model->parameters();
    ASSERT_EQ(after.size(), before.size());
    for (size_t i = 0; i < after.size(); ++i) {
      EXPECT_TRUE(after[i].is_same(before[i]));
      EXPECT_TRUE(after[i].requires_grad());
      EXPECT_EQ(after[i].scalar_type(), torch::kDouble);
    }
    EXPECT_TRUE(torch::allclose(model->forward(batch()).logits, expected, 1e-3, 1e-3));
    model->loss(batch(), labels()).backward();
    EXPECT_EQ(after[0].grad().scalar_type(), torch::kDouble);
  }
}

TEST(Training, TorchsArchiveTakesTheParametersAndGivesThemBack) {
  const io::TemporaryFolder folder;
  for (const auto& model : {trainable(), tied()}) {
    const auto file = (folder.path() / "model.pt").string();
    torch::save(std::static_pointer_cast<torch::nn::Module>(model), file);
    const auto expected = model->forward(batch()).logits.detach();
    const torch::NoGradGuard no_grad;
    for (auto& parameter : model->parameters()) parameter.zero_();
    std::shared_ptr<torch::nn::Module> module = model;
    torch::load(module, file);
    EXPECT_TRUE(torch::equal(model->forward(batch()).logits, expected));
  }
}

TEST(Training, StartsFromALoadedFolderAndNeverReachesItsFiles) {
  const io::TemporaryFolder folder;
  save_pretrained(*tiny_model(), folder.path());
  EXPECT_FALSE(load_pretrained(folder.path())->parameters()[0].requires_grad());
  const auto model = load_pretrained(folder.path(), {.requires_grad = true});
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1));
  model->loss(batch(), labels()).backward();
  optimizer.step();
  const auto original = state_dict(*tiny_model());
  for (const auto& [name, tensor] : state_dict(*load_pretrained(folder.path()))) {
    EXPECT_TRUE(torch::equal(tensor, original.at(name))) << name;
  }
  save_pretrained(*model, folder.path());
  const auto trained = state_dict(*model);
  for (const auto& [name, tensor] : state_dict(*load_pretrained(folder.path()))) {
    EXPECT_TRUE(torch::equal(tensor, trained.at(name))) << name;
    EXPECT_FALSE(torch::equal(tensor, original.at(name))) << name;
  }
}

}  // namespace
}  // namespace mistral_ext::models
