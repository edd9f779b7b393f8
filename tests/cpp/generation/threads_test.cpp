// Several threads and several models in one process: each gets what it gets alone, bit for bit. Run
// under ThreadSanitizer too (docs/cpp.md).

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <functional>
#include <latch>
#include <thread>

#include "io/temporary_folder.h"
#include "mistral_ext/generation/beam_search.h"
#include "mistral_ext/generation/generate.h"
#include "mistral_ext/generation/stream_tokens.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/save_pretrained.h"
#include "models/tiny_model.h"

namespace mistral_ext::generation {
namespace {

using models::MistralForCausalLM;
using models::tiny_config;
using models::tiny_model;

constexpr int kThreads = 4;
constexpr int64_t kNew = 24;

using Model = std::shared_ptr<MistralForCausalLM>;
using Tensors = std::vector<torch::Tensor>;
using Work = std::function<Tensors(int thread)>;

// A model of the same weights that has not run yet: what is made at the first pass, and grows with
// the positions, is not there.
Model unused(const Model& model) {
  auto other = std::make_shared<MistralForCausalLM>(model->config());
  models::load_parameters(*other, models::state_dict(*model));
  return other;
}

// All start together.
std::vector<Tensors> run_at_once(const Work& work) {
  std::vector<Tensors> results(kThreads);
  std::latch start(kThreads);
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      results[i] = work(i);
    });
  }
  threads.clear();
  return results;
}

// In a new thread too, so that torch splits its sums alike.
std::vector<Tensors> run_in_turn(const Work& work) {
  std::vector<Tensors> results(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    std::jthread([&, i] { results[i] = work(i); }).join();
  }
  return results;
}

void expect_equal(const std::vector<Tensors>& found, const std::vector<Tensors>& expected) {
  for (int i = 0; i < kThreads; ++i) {
    ASSERT_EQ(found[i].size(), expected[i].size());
    ASSERT_FALSE(found[i].empty());
    for (size_t k = 0; k < found[i].size(); ++k) {
      EXPECT_TRUE(torch::equal(found[i][k], expected[i][k])) << "thread " << i << ", tensor " << k;
    }
  }
}

// Another prompt, and another length, in each thread.
torch::Tensor prompt_of(int thread) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(thread + 1);
  return torch::randint(3, 61, {2, 5 + 4 * thread}, generator, torch::kLong);
}

GenerationConfig config_of(int thread) {
  GenerationConfig config;
  config.max_new_tokens = kNew;
  config.output_logits = true;
  config.prefill_chunk_size = 4;
  config.do_sample = thread % 2 == 1;
  config.top_k = 20;
  config.top_p = 0.9;
  config.seed = 7 + thread;
  return config;
}

Tensors generated_by(MistralForCausalLM& model, int thread) {
  cache::KVCache cache(model.config());
  GenerateInputs inputs;
  inputs.input_ids = prompt_of(thread);
  inputs.cache = &cache;
  auto output = generate(model, inputs, config_of(thread));
  output.logits.push_back(output.sequences);
  return output.logits;
}

TEST(Threads, OneModelServesSeveralAtOnce) {
  for (const int64_t window : {0, 6}) {
    const auto model = tiny_model(tiny_config(window));
    const auto other = unused(model);
    expect_equal(run_at_once([&](int thread) { return generated_by(*model, thread); }),
                 run_in_turn([&](int thread) { return generated_by(*other, thread); }));
  }
}

TEST(Threads, OneModelSearchesWithBeamsSeveralTimesAtOnce) {
  const auto model = tiny_model();
  const auto other = unused(model);
  const auto search = [](MistralForCausalLM& model, int thread) -> Tensors {
    GenerateInputs inputs;
    inputs.input_ids = prompt_of(thread);
    auto config = config_of(thread);
    const auto found = beam_search(model, inputs, config, {.num_beams = 3});
    return {found.sequences, found.sequences_scores, found.beam_indices};
  };
  expect_equal(run_at_once([&](int thread) { return search(*model, thread); }),
               run_in_turn([&](int thread) { return search(*other, thread); }));
}

// Gradient mode and dtype are a thread's own.
TEST(Threads, SomeGenerateWhileOthersComputeGradients) {
  const auto model = tiny_model();
  for (auto& parameter : model->parameters()) parameter.requires_grad_();
  const auto work = [&](MistralForCausalLM& model, int thread) -> Tensors {
    if (thread % 2 == 0) return generated_by(model, thread);
    models::ModelInputs inputs;
    inputs.input_ids = prompt_of(thread);
    inputs.checkpointed_layers = {thread == 3, thread == 3};
    const auto loss = model.loss(inputs, inputs.input_ids);
    // Not backward(), which adds to what all threads share.
    auto results = torch::autograd::grad({loss}, model.parameters());
    results.push_back(loss.detach());
    return results;
  };
  const auto other = unused(model);
  expect_equal(run_at_once([&](int thread) { return work(*model, thread); }),
               run_in_turn([&](int thread) { return work(*other, thread); }));
}

TEST(Threads, ModelsOfDifferentDtypesAndShapesRunAtOnce) {
  std::vector<Model> used;
  std::vector<Model> unused_ones;
  for (int i = 0; i < kThreads; ++i) {
    const auto model = tiny_model(tiny_config(i == 3 ? 5 : 0));
    model->to(std::array{torch::kFloat, torch::kBFloat16, torch::kHalf, torch::kDouble}[i]);
    used.push_back(model);
    unused_ones.push_back(unused(model));
  }
  expect_equal(run_at_once([&](int thread) { return generated_by(*used[thread], thread); }),
               run_in_turn([&](int thread) { return generated_by(*unused_ones[thread], thread); }));
}

TEST(Threads, EachMayLoadTheSameFolder) {
  const io::TemporaryFolder folder;
  const auto model = tiny_model();
  models::save_pretrained(*model, folder.path());
  const auto work = [&](int thread) {
    return generated_by(*models::load_pretrained(folder.path()), thread);
  };
  expect_equal(run_at_once(work),
               run_in_turn([&](int thread) { return generated_by(*model, thread); }));
}

TEST(Threads, AnotherThreadCancelsAndTheCacheGoesOn) {
  const auto model = tiny_model();
  GenerateInputs inputs;
  inputs.input_ids = prompt_of(0).narrow(0, 0, 1);
  GenerationConfig config;
  config.max_new_tokens = kNew;
  const auto whole = generate(*model, inputs, config).sequences;

  cache::KVCache cache(model->config());
  inputs.cache = &cache;
  std::stop_source stop;
  std::atomic<int> seen = 0;
  std::jthread canceller([&] {
    while (seen < 5) std::this_thread::yield();
    stop.request_stop();
  });
  Callbacks callbacks;
  callbacks.stop = stop.get_token();
  callbacks.on_step = stream_tokens([&](int64_t) {
    // So that the request comes before the end, however fast the model is.
    if (++seen == 8) canceller.join();
    return true;
  });
  const auto output = generate(*model, inputs, config, callbacks);
  EXPECT_TRUE(output.cancelled);
  EXPECT_FALSE(output.stopped.any().item<bool>());
  EXPECT_GE(output.steps, 5);
  EXPECT_LE(output.steps, 8);
  const int64_t length = output.sequences.size(1);
  EXPECT_EQ(cache.seen(), length - 1);
  EXPECT_TRUE(torch::equal(output.sequences, whole.narrow(1, 0, length)));

  inputs.input_ids = output.sequences;
  config.max_new_tokens = kNew - output.steps;
  const auto rest = generate(*model, inputs, config);
  EXPECT_FALSE(rest.cancelled);
  EXPECT_TRUE(torch::equal(rest.sequences, whole));
}

}  // namespace
}  // namespace mistral_ext::generation
