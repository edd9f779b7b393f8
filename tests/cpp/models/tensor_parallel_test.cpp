// Ranks that are threads of this process, each with a backend of its own.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <vector>

#include "io/temporary_folder.h"
#include "mistral_ext/generation/generate.h"
#include "mistral_ext/models/gather.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/models/save_pretrained.h"
#include "mistral_ext/parallel/collectives.h"
#include "models/tiny_model.h"
#include "parallel/ranks.h"

namespace mistral_ext::models {
namespace {

// work(context) on so many ranks at once, which must not throw.
void on_ranks(int size, const std::function<void(const parallel::Context&)>& work) {
  const auto errors =
      parallel::errors_in_threads(size, [&](int rank, const parallel::Store& store) {
        auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
        group->setBackend(at::kCPU,
                          c10d::ProcessGroup::BackendType::CUSTOM,
                          parallel::make_backend(store, rank, size));
        group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
        group->setGroupName("tp");
        work(parallel::Context(group));
      });
  EXPECT_EQ(errors, std::vector<std::string>(size));
}

MistralConfig config_of_even_sizes() {
  auto config = tiny_config();
  config.vocab_size = 64;
  return config;
}

class TensorParallel : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    model_ = tiny_model(config_of_even_sizes());
    save_pretrained(*model_, folder_);
    save_prepacked(*model_, folder_);
    ids_ = torch::randint(0, 64, {2, 9}, at::kLong);
  }

  at::Tensor logits(MistralForCausalLM& model) const {
    const at::NoGradGuard no_grad;
    ModelInputs inputs;
    inputs.input_ids = ids_;
    return model.forward(inputs).logits;
  }

  io::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
  std::shared_ptr<MistralForCausalLM> model_;
  at::Tensor ids_;
};

// fp32 sums in another order.
constexpr double kRelative = 1e-5;

bool is_near(const at::Tensor& mine, const at::Tensor& theirs) {
  return (mine - theirs).abs().max().item<double>() <=
         kRelative * theirs.abs().max().item<double>();
}

TEST_P(TensorParallel, LoadedPartsComputeWhatTheWholeDoes) {
  const auto expected = logits(*model_);
  on_ranks(GetParam(), [&](const parallel::Context& ranks) {
    const auto model = load_pretrained(folder_, {.parallel = ranks});
    EXPECT_TRUE(is_near(logits(*model), expected));
    const auto packed = load_prepacked(folder_, {.parallel = ranks});
    EXPECT_TRUE(is_near(logits(*packed), expected));
  });
}

TEST_P(TensorParallel, GathersAndSavesTheWhole) {
  const auto expected = state_dict(*model_);
  on_ranks(GetParam(), [&](const parallel::Context& ranks) {
    const auto model = load_pretrained(folder_, {.parallel = ranks});
    const auto whole = gather_state_dict(*model);
    ASSERT_EQ(whole.size(), expected.size());
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(whole.at(name), tensor));
    save_pretrained(*model, folder_ / "again");
  });
  EXPECT_TRUE(same_weights(*load_pretrained(folder_ / "again"), *model_));
}

TEST_P(TensorParallel, GeneratesTheSameTokensOnEveryRank) {
  generation::GenerationConfig config;
  config.max_new_tokens = 12;
  generation::GenerateInputs inputs;
  inputs.input_ids = ids_;
  const auto expected = generation::generate(*model_, inputs, config).sequences;
  on_ranks(GetParam(), [&](const parallel::Context& ranks) {
    const auto model = load_pretrained(folder_, {.parallel = ranks});
    EXPECT_TRUE(at::equal(generation::generate(*model, inputs, config).sequences, expected));
  });
}

TEST_P(TensorParallel, OneRanksCancellationIsAllRanks) {
  generation::GenerationConfig config;
  config.max_new_tokens = 40;
  generation::GenerateInputs inputs;
  inputs.input_ids = ids_;
  std::vector<int64_t> steps(GetParam());
  on_ranks(GetParam(), [&](const parallel::Context& ranks) {
    const auto model = load_pretrained(folder_, {.parallel = ranks});
    std::stop_source source;
    generation::Callbacks callbacks;
    callbacks.stop = source.get_token();
    callbacks.on_step = [&](const generation::Step& step) {
      if (ranks.rank() == 1 && step.sequences.size(1) == 12) source.request_stop();
      return at::Tensor();
    };
    const auto output = generation::generate(*model, inputs, config, callbacks);
    EXPECT_TRUE(output.cancelled);
    steps[ranks.rank()] = output.steps;
  });
  for (const auto each : steps) EXPECT_EQ(each, 3);
}

TEST_P(TensorParallel, TheLossAndItsGradientsAreTheWholes) {
  for (auto& parameter : model_->parameters()) parameter.requires_grad_();
  ModelInputs inputs;
  inputs.input_ids = ids_;
  const auto expected = model_->loss(inputs, ids_);
  expected.backward();
  on_ranks(GetParam(), [&](const parallel::Context& ranks) {
    const auto model = load_pretrained(folder_, {.requires_grad = true, .parallel = ranks});
    ModelInputs mine;
    mine.input_ids = ids_;
    mine.checkpointed_layers = {true, false};
    const auto loss = model->loss(mine, ids_);
    loss.backward();
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5 * expected.item<double>());
    const auto modules = weighted_modules(*model);
    for (const auto& [name, module] : weighted_modules(*model_)) {
      const auto gradient = parallel::gather_shards(
          modules.at(name)->weight().grad(), modules.at(name)->shard(), ranks);
      EXPECT_TRUE(is_near(gradient, module->weight().grad())) << name;
    }
  });
}

TEST_P(TensorParallel, RefusesInputsThatDifferOnEveryRank) {
  std::atomic<int> refused = 0;
  on_ranks(GetParam(), [&](const parallel::Context& ranks) {
    const auto model = load_pretrained(folder_, {.parallel = ranks});
    ModelInputs inputs;
    inputs.input_ids = ids_ + ranks.rank();
    try {
      model->forward(inputs);
    } catch (const c10::ValueError& error) {
      const std::string message = error.what_without_backtrace();
      EXPECT_NE(message.find("the input must be the same on all ranks"), std::string::npos);
      ++refused;
    }
  });
  EXPECT_EQ(refused, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Ranks, TensorParallel, testing::Values(2, 4));

}  // namespace
}  // namespace mistral_ext::models
