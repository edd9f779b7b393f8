// Several threads and several models in one process: each gets what it gets alone, bit for bit. Run
// under ThreadSanitizer too (docs/cpp.md).

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <condition_variable>
#include <latch>
#include <mutex>
#include <thread>

#include "at_once.h"
#include "io/temporary_folder.h"
#include "mistral_ext/generation/beam_search.h"
#include "mistral_ext/generation/generate.h"
#include "mistral_ext/generation/stream_tokens.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/models/save_pretrained.h"
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "models/tiny_model.h"
#include "tokenizers/model_bytes.h"

namespace mistral_ext::generation {
namespace {

using models::MistralForCausalLM;
using models::tiny_config;
using models::tiny_model;

constexpr int64_t kNew = 24;

using Model = std::shared_ptr<MistralForCausalLM>;
using Tensors = std::vector<torch::Tensor>;

// A model of the same weights that has not run yet: what is made at the first pass, and grows with
// the positions, is not there.
Model unused(const Model& model) {
  auto other = std::make_shared<MistralForCausalLM>(model->config());
  models::load_parameters(*other, models::state_dict(*model));
  return other;
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
  models::save_prepacked(*model, folder.path());
  const auto as_double = tiny_model();
  as_double->to(torch::kDouble);
  // Mapped, converted, and read whole.
  const auto work = [&](int thread) {
    switch (thread % 3) {
      case 0:
        return generated_by(*models::load_pretrained(folder.path()), thread);
      case 1:
        return generated_by(*models::load_pretrained(folder.path(), {.dtype = torch::kDouble}),
                            thread);
      default:
        return generated_by(*models::load_prepacked(folder.path(), {.verify = true}), thread);
    }
  };
  expect_equal(run_at_once(work), run_in_turn([&](int thread) {
                 return generated_by(thread % 3 == 1 ? *as_double : *model, thread);
               }));
}

// Wide enough for the operators to share out their work among torch's threads too.
MistralConfig wide_config() {
  auto config = tiny_config(40);
  config.vocab_size = 600;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_attention_heads = 8;
  config.head_dim = 32;
  config.max_position_embeddings = 256;
  return config;
}

TEST(Threads, EachMayShareOutItsWorkAmongThreadsOfItsOwn) {
  const auto model = tiny_model(wide_config());
  for (auto& parameter : model->parameters()) parameter.requires_grad_();
  const auto other = unused(model);
  const auto work = [&](MistralForCausalLM& model, int thread) -> Tensors {
    const auto generator = at::make_generator<at::CPUGeneratorImpl>(thread + 1);
    models::ModelInputs inputs;
    inputs.input_ids = torch::randint(3, 600, {2, 90 + thread}, generator, torch::kLong);
    auto results =
        torch::autograd::grad({model.loss(inputs, inputs.input_ids)}, model.parameters());
    GenerateInputs prompt;
    prompt.input_ids = inputs.input_ids;
    auto config = config_of(thread);
    config.max_new_tokens = 4;
    config.prefill_chunk_size = 60;
    const auto output = generate(model, prompt, config);
    results.insert(results.end(), output.logits.begin(), output.logits.end());
    return results;
  };
  expect_equal(run_at_once([&](int thread) { return work(*model, thread); }),
               run_in_turn([&](int thread) { return work(*other, thread); }));
}

struct Streamed {
  std::string text;
  std::string decoded;  // all at once
  bool operator==(const Streamed&) const = default;
};

TEST(Threads, EachStreamsTextFromOneModelAndOneTokenizer) {
  const auto model = tiny_model();
  const auto tokenizer = tokenizers::parse_sentencepiece(tokenizers::small_model(), "load: m");
  const auto stream = [&](int thread) {
    Streamed streamed;
    std::vector<int64_t> tokens;
    const auto text = tokenizer->text_stream();
    Callbacks callbacks;
    callbacks.on_step = stream_tokens([&](int64_t token) {
      tokens.push_back(token);
      streamed.text += text->put(token);
      return true;
    });
    GenerateInputs inputs;
    inputs.input_ids = prompt_of(thread).narrow(0, 0, 1);
    const auto output = generate(*model, inputs, config_of(thread), callbacks);
    streamed.text += text->finish();
    streamed.decoded = tokenizer->decode(tokens);
    EXPECT_TRUE(torch::equal(torch::tensor(tokens),
                             output.sequences[0].slice(0, inputs.input_ids.size(1))));
    return streamed;
  };
  const auto found = run_at_once(stream);
  EXPECT_EQ(found, run_in_turn(stream));
  for (const auto& streamed : found) {
    EXPECT_EQ(streamed.text, streamed.decoded);
    EXPECT_FALSE(streamed.text.empty());
  }
}

TEST(Threads, OneRequestCancelsAllThatWaitForIt) {
  const auto model = tiny_model();
  constexpr int kSteps = 5;
  std::stop_source stop;
  std::latch all_began(kThreads);
  std::jthread canceller([&] {
    all_began.wait();
    stop.request_stop();
  });
  const auto cancelled = run_at_once([&](int thread) -> Tensors {
    Callbacks callbacks;
    callbacks.stop = stop.get_token();
    callbacks.on_step = [&, step = 0](const Step&) mutable {
      if (++step == kSteps) {
        all_began.count_down();
        // Until the request is there, which the callback may wait for too.
        std::mutex mutex;
        std::unique_lock lock(mutex);
        std::condition_variable_any().wait(lock, stop.get_token(), [] { return false; });
      }
      return torch::Tensor();
    };
    GenerateInputs inputs;
    inputs.input_ids = prompt_of(thread);
    const auto output = generate(*model, inputs, config_of(thread), callbacks);
    EXPECT_TRUE(output.cancelled);
    EXPECT_EQ(output.steps, kSteps);
    return {output.sequences};
  });
  expect_equal(cancelled, run_in_turn([&](int thread) -> Tensors {
                 GenerateInputs inputs;
                 inputs.input_ids = prompt_of(thread);
                 auto config = config_of(thread);
                 config.max_new_tokens = kSteps;
                 return {generate(*model, inputs, config).sequences};
               }));
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
