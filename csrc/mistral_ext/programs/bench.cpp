// mistral_ext_bench: how fast a model reads prompts and makes tokens, beside what the machine
// allows.
#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "mistral_ext/generation/generate.h"
#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/programs/costs.h"
#include "mistral_ext/programs/interrupt.h"
#include "mistral_ext/programs/machine.h"
#include "mistral_ext/programs/model_options.h"
#include "mistral_ext/programs/option_values.h"
#include "mistral_ext/programs/program.h"
#include "mistral_ext/programs/random_model.h"
#include "mistral_ext/programs/speed.h"

namespace mistral_ext::programs {
namespace {

struct Options {
  std::string folder;
  std::string shape;
  ModelOptions model;
  std::vector<int64_t> prompt_tokens = {512};
  std::vector<int64_t> batches = {1};
  int64_t new_tokens = 64;
  int64_t repeats = 3;
  std::string json;
};

void add_options(CLI::App& app, Options& options) {
  auto* folder = app.add_option("model", options.folder, "a model's folder")->type_name("FOLDER");
  app.add_option("--shape",
                 options.shape,
                 fmt::format("random weights instead: {}", fmt::join(shape_names(), ", ")))
      ->check(CLI::IsMember(shape_names()))
      ->type_name("NAME")
      ->excludes(folder);
  app.add_option("--prompt-tokens", options.prompt_tokens, "lengths of prompts (default: 512)")
      ->transform(integer(1))
      ->delimiter(',');
  app.add_option("--batch", options.batches, "numbers of prompts at once (default: 1)")
      ->transform(integer(1))
      ->delimiter(',');
  app.add_option("--new-tokens", options.new_tokens, "tokens timed in each row (default: 64)")
      ->transform(integer(1));
  app.add_option("--repeats", options.repeats, "the median of so many (default: 3)")
      ->transform(integer(1));
  app.add_option("--json", options.json, "a file to write the figures to; - is standard output")
      ->type_name("FILE");
  add_model_options(app, options.model);
}

struct Case {
  int64_t batch;
  int64_t prompt_tokens;
  std::vector<double> prompt_seconds;
  std::vector<double> step_seconds;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  void operator()() {
    apply_threads(options_.model);
    model_ = make_model();
    const InterruptWatch watch;
    measure_machine();
    measure_model();
    measure_machine();  // what others did meanwhile slows either: the better of both counts
    const bool is_json_alone = options_.json == "-";
    if (!is_json_alone) print();
    if (options_.json.empty()) return;
    const auto text = io::to_json(result(), "--json") + "\n";
    if (is_json_alone) {
      std::cout << text;
      return;
    }
    io::AtomicFile file(options_.json);
    file.write(text.data(), std::ssize(text));
    file.finish();
    file.commit();
  }

 private:
  std::shared_ptr<models::MistralForCausalLM> make_model() const {
    if (!options_.folder.empty()) return load_model(options_.folder, options_.model);
    if (options_.shape.empty()) throw UsageError("model is required, or --shape");
    return random_model(options_.shape,
                        chosen_dtype(options_.model).value_or(at::kBFloat16),
                        chosen_device(options_.model));
  }

  void measure_machine() {
    const auto device = model_->device();
    bandwidth_ = std::max(bandwidth_, read_bandwidth(device));
    operations_ = std::max(operations_, operations_per_second(device, model_->dtype()));
    InterruptWatch::check();
  }

  void measure_model() {
    for (const auto batch : options_.batches) {
      for (const auto tokens : options_.prompt_tokens) cases_.push_back({batch, tokens, {}, {}});
    }
    for (const auto& item : cases_) time(item.batch, item.prompt_tokens, 2);  // warms up
    for (int64_t i = 0; i < options_.repeats; ++i) {
      for (auto& item : cases_) {
        const auto clock = time(item.batch, item.prompt_tokens, options_.new_tokens + 1);
        item.prompt_seconds.push_back(clock.first());
        item.step_seconds.push_back(clock.each());
      }
    }
  }

  TokenClock time(int64_t batch, int64_t prompt_tokens, int64_t new_tokens) {
    generation::GenerateInputs inputs;
    inputs.input_ids = at::randint(model_->config().vocab_size, {batch, prompt_tokens}, at::kLong);
    generation::GenerationConfig config;  // greedy, and nothing ends it
    config.max_new_tokens = new_tokens;
    TokenClock clock(model_->device());
    generation::Callbacks callbacks;
    callbacks.check_interrupt = InterruptWatch::check;
    callbacks.on_overlength = [](int64_t) {};
    callbacks.on_step = [&](const generation::Step&) {
      clock.tick();
      return at::Tensor();
    };
    generation::generate(*model_, inputs, config, callbacks);
    return clock;
  }

  double prompt_tokens_per_second(const Case& item) const {
    return static_cast<double>(item.batch * item.prompt_tokens) / median(item.prompt_seconds);
  }

  double prompt_share(const Case& item) const {
    return prompt_operations(*model_, item.batch, item.prompt_tokens) / operations_ /
           median(item.prompt_seconds);
  }

  double tokens_per_second(const Case& item) const {
    return static_cast<double>(item.batch) / median(item.step_seconds);
  }

  // With the keys and values that lie behind the middle one of the new tokens.
  double decode_share(const Case& item) const {
    const auto past = item.prompt_tokens + options_.new_tokens / 2;
    const auto bytes = weight_bytes(*model_) + cache_bytes(*model_, item.batch, past);
    return static_cast<double>(bytes) / bandwidth_ / median(item.step_seconds);
  }

  void print() const {
    std::cout << fmt::format("{:>6}{:>8}{:>18}{:>12}{:>18}{:>12}\n",
                             "batch",
                             "prompt",
                             "prompt tokens/s",
                             "of FLOP/s",
                             "new tokens/s",
                             "of GB/s");
    for (const auto& item : cases_) {
      std::cout << fmt::format("{:>6}{:>8}{:>18.1f}{:>12.2f}{:>18.1f}{:>12.2f}\n",
                               item.batch,
                               item.prompt_tokens,
                               prompt_tokens_per_second(item),
                               prompt_share(item),
                               tokens_per_second(item),
                               decode_share(item));
    }
    std::cout << fmt::format(
        "{}, {}, {}, {} threads: {:.1f} GB/s read, {:.0f} GFLOP/s in products of "
        "matrices; {:.2f} GB of memory at the peak\n",
        name(),
        name_of(model_->dtype()),
        model_->device().str(),
        at::get_num_threads(),
        bandwidth_ / 1e9,
        operations_ / 1e9,
        static_cast<double>(peak_memory_bytes()) / 1e9);
  }

  const std::string& name() const {
    return options_.folder.empty() ? options_.shape : options_.folder;
  }

  ConfigMap result() const {
    ConfigList rows;
    for (const auto& item : cases_) {
      ConfigMap row;
      row["batch"].value = item.batch;
      row["prompt_tokens"].value = item.prompt_tokens;
      row["prompt_tokens_per_second"].value = prompt_tokens_per_second(item);
      row["prompt_share_of_limit"].value = prompt_share(item);
      row["new_tokens_per_second"].value = tokens_per_second(item);
      row["new_tokens_share_of_limit"].value = decode_share(item);
      rows.emplace_back().value = std::move(row);
    }
    ConfigMap result;
    result["model"].value = name();
    result["dtype"].value = name_of(model_->dtype());
    result["new_tokens"].value = options_.new_tokens;
    result["weight_bytes"].value = weight_bytes(*model_);
    result["read_bandwidth"].value = bandwidth_;
    result["operations_per_second"].value = operations_;
    result["peak_memory_bytes"].value = peak_memory_bytes();
    result["machine"].value = describe_machine(model_->device());
    result["cases"].value = std::move(rows);
    return result;
  }

  const Options& options_;
  std::shared_ptr<models::MistralForCausalLM> model_;
  double bandwidth_ = 0;   // bytes a second
  double operations_ = 0;  // a second
  std::vector<Case> cases_;
};

}  // namespace
}  // namespace mistral_ext::programs

// What may throw before run_program is the making of the options: a mistake here, not the user's.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  CLI::App app("Measure prompts and decoding of a model, beside what the machine allows.",
               "mistral_ext_bench");
  mistral_ext::programs::Options options;
  mistral_ext::programs::add_options(app, options);
  return mistral_ext::programs::run_program(
      app, argc, argv, [&] { mistral_ext::programs::Bench{options}(); });
}
