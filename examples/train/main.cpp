// Fine-tunes the model of a folder on a text and saves it as a folder that Hugging Face loads:
//   train <folder> <file> <output folder> <steps> <batch> <tokens> <learning rate>
// The file is a text in UTF-8 or, where its name ends in .ids, token ids between spaces. Step i
// takes the batch * tokens ids that follow those of step i - 1. Prints the loss of each step.

#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>

#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "mistral_ext/mistral_ext.h"

namespace {

// The token ids of a file of them, or of a text.
std::vector<int64_t> read_ids(const std::filesystem::path& path,
                              const std::filesystem::path& folder) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  if (path.extension() == ".ids") {
    std::vector<int64_t> ids{std::istream_iterator<int64_t>(file), {}};
    if (!file.eof()) throw std::runtime_error(path.string() + ": must hold integers alone");
    return ids;
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return mistral_ext::tokenizers::load_tokenizer(folder)->encode(text);
}

// Saves the model as a folder that goes on as the one it comes from: its text begins and ends with
// the same tokens, and it is generated in the same way.
void save(const mistral_ext::models::MistralForCausalLM& model,
          const std::filesystem::path& folder,
          const std::filesystem::path& output) {
  mistral_ext::models::SaveOptions options;
  const char* generation = "generation_config.json";
  if (std::filesystem::exists(folder / generation)) {
    options.generation_config = mistral_ext::io::read_config_file(folder / generation);
  }
  mistral_ext::models::save_pretrained(model, output, /*more=*/{}, options);
  if (std::filesystem::equivalent(folder, output)) return;
  // One that is there is another model's.
  if (!options.generation_config) std::filesystem::remove(output / generation);
  const std::set<std::string> tokenizer = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "chat_template.jinja",
                                           "tekken.json"};
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    // Also tokenizer.model.v3 and the like.
    const bool is_of_it = tokenizer.contains(name) || name.starts_with("tokenizer.model");
    if (is_of_it && entry.is_regular_file()) {
      std::filesystem::copy_file(
          entry.path(), output / name, std::filesystem::copy_options::overwrite_existing);
    }
  }
}

void train(const std::vector<std::string>& arguments) {
  const std::filesystem::path folder = arguments.at(0);
  const std::filesystem::path file = arguments.at(1);
  const std::filesystem::path output = arguments.at(2);
  const int64_t steps = std::stoll(arguments.at(3));
  const int64_t batch = std::stoll(arguments.at(4));
  const int64_t tokens = std::stoll(arguments.at(5));
  const auto all = torch::tensor(read_ids(file, folder), torch::kLong);
  const int64_t wanted = steps * batch * tokens;
  if (all.numel() < wanted) {
    throw std::runtime_error(file.string() + ": must have " + std::to_string(wanted) +
                             " tokens, got " + std::to_string(all.numel()));
  }
  const auto ids = all.narrow(0, 0, wanted);

  auto model =
      mistral_ext::models::load_pretrained(folder, {.dtype = torch::kFloat, .requires_grad = true});
  model->train();
  torch::optim::AdamW optimizer(model->parameters(),
                                torch::optim::AdamWOptions(std::stod(arguments.at(6))));
  std::cout << std::setprecision(9);
  for (const auto& rows : ids.view({steps, batch, tokens}).unbind()) {
    mistral_ext::models::ModelInputs inputs;
    inputs.input_ids = rows;
    // Each layer runs again in the backward, in place of keeping what it computed.
    inputs.checkpointed_layers.assign(model->config().num_hidden_layers, true);
    const auto loss = model->loss(inputs, /*labels=*/rows);
    optimizer.zero_grad();
    loss.backward();
    torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0);
    optimizer.step();
    std::cout << loss.item<double>() << std::endl;
  }
  save(*model, folder, output);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    std::cerr << "usage: train <folder> <file> <output folder> <steps> <batch> <tokens> "
                 "<learning rate>\n";
    return 2;
  }
  try {
    train({argv + 1, argv + argc});
  } catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
