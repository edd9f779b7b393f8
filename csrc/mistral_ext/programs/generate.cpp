// mistral_ext_generate: continues a prompt with a model's folder.
#include "mistral_ext/generation/generate.h"

#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/beam_search.h"
#include "mistral_ext/generation/load_generation_config.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/programs/costs.h"
#include "mistral_ext/programs/instruction.h"
#include "mistral_ext/programs/interrupt.h"
#include "mistral_ext/programs/machine.h"
#include "mistral_ext/programs/model_options.h"
#include "mistral_ext/programs/program.h"
#include "mistral_ext/programs/prompt_options.h"
#include "mistral_ext/programs/sampling_options.h"
#include "mistral_ext/programs/speed.h"
#include "mistral_ext/tokenizers/load_tokenizer.h"

namespace mistral_ext::programs {
namespace {

struct Options {
  std::string folder;
  PromptOptions prompt;
  ModelOptions model;
  SamplingOptions sampling;
  bool stats = false;
  bool json = false;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("model", options.folder, "a model's folder")->required()->type_name("FOLDER");
  add_prompt_options(app, options.prompt);
  add_model_options(app, options.model);
  add_sampling_options(app, options.sampling);
  app.add_flag("--stats", options.stats, "say on stderr how fast it was");
  app.add_flag("--json", options.json, "print one JSON object at the end, and nothing else");
}

// One run: what was asked for, and what became of it.
class Run {
 public:
  Run(const CLI::App& app, const Options& options) : app_(app), options_(options) {}

  void operator()() {
    prepare();
    const InterruptWatch watch;
    if (!options_.prompt.chat && !options_.json) std::cout << prompt_ << std::flush;
    generate();
    if (options_.json) {
      std::cout << io::to_json(result(), "--json", /*indented=*/false) << '\n';
    } else {
      std::cout << '\n';
    }
    if (options_.stats) tell(app_, summary());
  }

 private:
  // Looks at all that can be wrong before it loads the weights.
  void prepare() {
    apply_threads(options_.model);
    check_folder(options_.folder);
    if (options_.json) io::to_json({{"model", {options_.folder}}}, "--json: model");
    read_prompt();
    config_ = generation::load_generation_config(options_.folder, &beams_);
    apply(options_.sampling, config_, beams_);
    const auto started = std::chrono::steady_clock::now();
    model_ = load_model(options_.folder, options_.model);
    load_seconds_ =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  }

  void read_prompt() {
    const auto text = read_text(options_.prompt);
    if (!text) {
      prompt_ids_ = read_ids(options_.prompt);
      return;
    }
    prompt_ = *text;
    if (options_.prompt.chat) {
      auto [tokenizer, version] = load_instruction(options_.folder, options_.prompt.chat_template);
      tokenizer_ = std::move(tokenizer);
      const tokenizers::Message message{tokenizers::Message::Role::kUser, prompt_};
      prompt_ids_ = tokenizers::encode_conversation(*tokenizer_, version, {&message, 1});
    } else {
      tokenizer_ = tokenizers::load_tokenizer(options_.folder);
      prompt_ids_ = tokenizer_->encode(prompt_);
    }
    MISTRAL_EXT_CHECK(!prompt_ids_.empty(),
                      "prompt must have at least one token, got an empty text");
    // What a token reads as may depend on those before it: the prompt goes first.
    stream_ = tokenizer_->text_stream(/*skip_special_tokens=*/true);
    // Some decoders hold text back; what is held of the prompt is not written again.
    size_t given = 0;
    for (const auto id : prompt_ids_) given += stream_->put(id).size();
    held_ = tokenizer_->decode(prompt_ids_, /*skip_special_tokens=*/true).substr(given);
  }

  void generate() {
    generation::GenerateInputs inputs;
    inputs.input_ids = at::tensor(prompt_ids_, at::kLong).unsqueeze(0);
    TokenClock clock(model_->device());
    generation::Callbacks callbacks;
    callbacks.check_interrupt = InterruptWatch::check;
    callbacks.on_overlength = [this](int64_t length) {
      tell(app_,
           fmt::format("the sequence has {} tokens, more than the model's "
                       "max_position_embeddings; what follows may be of poor quality",
                       length));
    };
    const bool is_beams = beams_.num_beams > 1;
    callbacks.on_step = [&](const generation::Step& step) {
      clock.tick();
      if (!is_beams) add(step.tokens.item<int64_t>());
      return at::Tensor();
    };
    if (is_beams) {
      const auto output = generation::beam_search(*model_, inputs, config_, beams_, callbacks);
      const auto row = output.sequences[0].cpu();
      for (auto i = std::ssize(prompt_ids_); i < row.numel(); ++i) add(row[i].item<int64_t>());
    } else {
      generation::generate(*model_, inputs, config_, callbacks);
    }
    if (stream_) write(stream_->finish());
    first_seconds_ = clock.first();
    step_seconds_ = clock.each();
  }

  void add(int64_t token) {
    const char* const space = tokens_.empty() ? "" : " ";
    tokens_.push_back(token);
    write(stream_ ? stream_->put(token) : fmt::format("{}{}", space, token));
  }

  void write(std::string piece) {
    drop_held(piece);
    text_ += piece;
    if (!options_.json) std::cout << piece << std::flush;
  }

  // Takes what is held of the prompt off the piece, as far as new tokens left it as it was.
  void drop_held(std::string& piece) {
    auto same = static_cast<size_t>(std::ranges::mismatch(piece, held_).in1 - piece.begin());
    const auto inside_character = [&] {
      return same < piece.size() && (static_cast<uint8_t>(piece[same]) & 0xC0) == 0x80;
    };
    while (inside_character()) --same;
    held_.erase(0, same == piece.size() ? same : held_.size());
    piece.erase(0, same);
  }

  ConfigMap result() const {
    ConfigMap result;
    const auto list = [](const std::vector<int64_t>& ids) {
      ConfigList values;
      for (const auto id : ids) values.emplace_back().value = id;
      return values;
    };
    result["model"].value = options_.folder;
    result["dtype"].value = name_of(model_->dtype());
    result["device"].value = model_->device().str();
    result["threads"].value = static_cast<int64_t>(at::get_num_threads());
    result["prompt_ids"].value = list(prompt_ids_);
    result["tokens"].value = list(tokens_);
    if (tokenizer_) {
      result["prompt"].value = prompt_;
      result["text"].value = text_;
    }
    if (config_.seed) result["seed"].value = static_cast<int64_t>(*config_.seed);
    result["load_seconds"].value = load_seconds_;
    result["first_token_seconds"].value = first_seconds_;
    result["step_seconds"].value = step_seconds_;
    result["peak_memory_bytes"].value = peak_memory_bytes();
    return result;
  }

  std::string summary() const {
    auto text = fmt::format(
        "{}, {}, {} threads; loaded in {:.2f} s; {} prompt tokens in {:.2f} s "
        "({:.1f} tokens/s)",
        name_of(model_->dtype()),
        model_->device().str(),
        at::get_num_threads(),
        load_seconds_,
        prompt_ids_.size(),
        first_seconds_,
        static_cast<double>(prompt_ids_.size()) / first_seconds_);
    if (step_seconds_ > 0) {
      text += fmt::format("; then {} tokens at {:.1f} tokens/s, reading weights at {:.1f} GB/s",
                          tokens_.size(),
                          1 / step_seconds_,
                          static_cast<double>(weight_bytes(*model_)) / step_seconds_ / 1e9);
    }
    return text + fmt::format("; {:.2f} GB of memory at the peak",
                              static_cast<double>(peak_memory_bytes()) / 1e9);
  }

  const CLI::App& app_;
  const Options& options_;
  std::string prompt_;
  std::vector<int64_t> prompt_ids_;
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer_;  // none for a prompt of ids
  std::unique_ptr<tokenizers::TextStream> stream_;
  std::string held_;  // what the stream has not given yet of the prompt
  std::shared_ptr<models::MistralForCausalLM> model_;
  generation::GenerationConfig config_;
  generation::BeamSearchConfig beams_;
  std::vector<int64_t> tokens_;  // new ones
  std::string text_;             // what was written behind the prompt
  double load_seconds_ = 0;
  double first_seconds_ = 0;
  double step_seconds_ = 0;
};

}  // namespace
}  // namespace mistral_ext::programs

// What may throw before run_program is the making of the options: a mistake here, not the user's.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  CLI::App app(
      "Continue a prompt. Sampling is what the folder's generation_config.json says, unless "
      "an option says otherwise.",
      "mistral_ext_generate");
  mistral_ext::programs::Options options;
  mistral_ext::programs::add_options(app, options);
  return mistral_ext::programs::run_program(
      app, argc, argv, [&] { mistral_ext::programs::Run(app, options)(); });
}
