#include "mistral_ext/models/load_pretrained.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>
#include <functional>

#include "io/temporary_folder.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/write_safetensors.h"
#include "mistral_ext/models/save_pretrained.h"
#include "models/tiny_model.h"

namespace mistral_ext::models {
namespace {

using io::message_of;
using io::TemporaryFolder;

// Saves the tiny model, its tensors changed by `change`, and says what loading it says.
std::string message_with(const std::function<void(io::StateDict&)>& change) {
  const TemporaryFolder folder;
  const auto model = tiny_model();
  save_pretrained(*model, folder.path());
  auto state = state_dict(*model);
  change(state);
  io::AtomicFile file(folder.path() / "model.safetensors");
  io::write_safetensors(file, state);
  file.finish();
  file.commit();
  return message_of(folder, [&] { load_pretrained(folder.path() / "."); });
}

std::string message_with_config(const std::string& key, ConfigValue value) {
  const TemporaryFolder folder;
  save_pretrained(*tiny_model(), folder.path());
  auto config = io::read_config_file(folder.path() / "config.json");
  config[key] = std::move(value);
  folder.write("config.json", io::to_json(config, "test"));
  return message_of(folder, [&] { load_pretrained(folder.path() / "."); });
}

TEST(LoadPretrained, WhatWasSavedComesBack) {
  const TemporaryFolder folder;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    const auto model = tiny_model();
    auto state = state_dict(*model);
    for (auto& [name, tensor] : state) tensor = tensor.to(dtype);
    load_parameters(*model, state);
    save_pretrained(*model, folder.path() / "new" / "folder", {{"eos_token_id", {int64_t{2}}}});
    const auto again = load_pretrained(folder.path() / "new" / "folder");
    EXPECT_EQ(again->dtype(), dtype);
    EXPECT_TRUE(same_weights(*model, *again));
    const auto config = io::read_config_file(folder.path() / "new" / "folder" / "config.json");
    EXPECT_EQ(std::get<int64_t>(config.at("eos_token_id").value), 2);
  }
}

TEST(LoadPretrained, ATiedHeadIsTheEmbeddingAndIsNotSaved) {
  const TemporaryFolder folder;
  auto config = tiny_config();
  config.tie_word_embeddings = true;
  auto model = std::make_shared<MistralForCausalLM>(config);
  auto state = state_dict(*tiny_model());
  state.erase("lm_head.weight");
  load_parameters(*model, state);
  save_pretrained(*model, folder.path());
  EXPECT_EQ(io::SafetensorsFile(folder.path() / "model.safetensors").find("lm_head.weight"),
            nullptr);
  const auto again = load_pretrained(folder.path());
  EXPECT_TRUE(same_weights(*model, *again));
  EXPECT_FALSE(state_dict(*again).contains("lm_head.weight"));
}

TEST(LoadPretrained, ATensorThatIsMissingOrUnknownOrOfAnotherShapeIsNamed) {
  const std::string norm = "model.layers.1.input_layernorm.weight";
  EXPECT_EQ(message_with([&](auto& state) { state.erase(norm); }),
            "load: .: " + norm + " is missing");
  EXPECT_EQ(message_with([](auto& state) { state.erase("lm_head.weight"); }),
            "load: .: lm_head.weight is missing");
  EXPECT_EQ(message_with([](auto& state) { state["more.weight"] = torch::ones(1); }),
            "load: .: more.weight is not a parameter of this model");
  EXPECT_EQ(message_with([&](auto& state) { state[norm] = torch::ones(47); }),
            "load: .: " + norm + " must have shape [48], got [47]");
  EXPECT_EQ(message_with([&](auto& state) { state[norm] = torch::ones(48, at::kLong); }),
            "load: .: " + norm + " must be floating point, got Long");
  EXPECT_EQ(message_with([](auto& state) {
              state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch::ones(8);
            }),
            "no error");
  EXPECT_EQ(message_with([&](auto& state) { state[norm] = torch::ones(48, at::kBFloat16); }),
            "no error");
}

TEST(LoadPretrained, AConfigurationThatDoesNotFitIsNamedWithItsFile) {
  EXPECT_EQ(message_with_config("num_hidden_layers", {int64_t{3}}),
            "load: .: model.layers.2.input_layernorm.weight is missing");
  EXPECT_EQ(message_with_config("num_hidden_layers", {int64_t{1}}),
            "load: .: model.layers.1.input_layernorm.weight is not a parameter of this model");
  EXPECT_EQ(message_with_config("num_hidden_layers", {int64_t{9'999}}),
            "load: .: model.layers.2.input_layernorm.weight is missing");
  EXPECT_EQ(message_with_config("hidden_size", {"wide"}),
            "load: ./config.json: config: hidden_size must be an integer, got \"wide\"");
  EXPECT_EQ(message_with_config("hidden_act", {"gelu"}),
            "load: .: config: hidden_act must be silu, got gelu");
  EXPECT_EQ(message_with_config("dtype", {"int8"}),
            "load: ./config.json: config: dtype must be float32, bfloat16, float16 or float64, got "
            "int8");
  EXPECT_EQ(message_with_config("quantization_config", {ConfigMap()}),
            "load: ./config.json: config: quantization_config must be absent, got one");
}

TEST(LoadPretrained, AFolderWithoutAModelIsNamed) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& name) {
    return message_of(folder, [&] { load_pretrained(folder.path() / name); });
  };
  EXPECT_EQ(message("none"), "load: none: must be a folder, got none");
  folder.write("file", "");
  EXPECT_EQ(message("file"), "load: file: must be a folder, got something else");
  EXPECT_EQ(message("."),
            "load: ./config.json: must be a readable file, got \"No such file or directory\"");
  save_pretrained(*tiny_model(), folder.path());
  std::filesystem::remove(folder.path() / "model.safetensors");
  EXPECT_EQ(message("."),
            "load: .: must hold model.safetensors, model.safetensors.index.json or "
            "consolidated.safetensors, got none of them");
}

TEST(SavePretrained, AFullDiskLeavesTheOldFilesAndNothingElse) {
  const TemporaryFolder folder;
  const auto model = tiny_model();
  save_pretrained(*model, folder.path(), {{"mark", {"old"}}});
  const auto bytes = std::filesystem::file_size(folder.path() / "model.safetensors");
  // A limit of the files' size stands for the disk's.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{bytes / 2, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto message = message_of(
      folder, [&] { save_pretrained(*model, folder.path() / ".", {{"mark", {"new"}}}); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(
      message,
      "save: ./model.safetensors: must be a file that can be written, got \"File too large\"");
  EXPECT_TRUE(same_weights(*load_pretrained(folder.path()), *model));
  const auto config = io::read_config_file(folder.path() / "config.json");
  EXPECT_EQ(std::get<std::string>(config.at("mark").value), "old");
  const auto files = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 2);
}

TEST(SavePretrained, WhatCannotBeSavedIsNamed) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of(folder,
                       [&] {
                         const MistralForCausalLM empty(tiny_config());
                         save_pretrained(empty, folder.path());
                       }),
            "save: model.safetensors: lm_head.weight must be a tensor with storage, got none");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  folder.write("file", "");
  EXPECT_TRUE(message_of(folder, [&] {
                save_pretrained(*tiny_model(), folder.path() / "file");
              }).starts_with("save: file: must be a folder that can be made"));
}

}  // namespace
}  // namespace mistral_ext::models
