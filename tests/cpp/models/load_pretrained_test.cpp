#include "mistral_ext/models/load_pretrained.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include "io/temporary_folder.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/write_safetensors.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/models/save_pretrained.h"
#include "mistral_ext/models/saved_config.h"
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

TEST(SavePretrained, FieldsOfTheLoadedConfigurationAreWrittenAgain) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "config.json";
  save_pretrained(*tiny_model(), folder.path());
  auto fields = io::read_config_file(path);
  const auto theta = fields.at("rope_parameters");
  fields["eos_token_id"] = {ConfigList{{int64_t{2}}, {int64_t{7}}}};
  fields["bos_token_id"] = {int64_t{1}};
  fields["initializer_range"] = {0.02};
  // What the model has in another form, or a new folder does not have.
  fields.erase("rope_parameters");
  fields["rope_theta"] = {1e4};
  fields["torch_dtype"] = {"float32"};
  fields["auto_map"] = {ConfigMap{{"AutoConfig", {"own.Config"}}}};
  folder.write("config.json", io::to_json(fields, "test"));
  save_prepacked(*load_pretrained(folder.path()), folder.path() / "prepacked");
  for (const auto& model :
       {load_pretrained(folder.path()), load_prepacked(folder.path() / "prepacked")}) {
    const ConfigMap more = {{"bos_token_id", {int64_t{5}}}, {"hidden_size", {int64_t{1}}}};
    save_pretrained(*model, folder.path() / "again", more);
    auto expected = fields;
    for (const auto* name : {"rope_theta", "torch_dtype", "auto_map"}) expected.erase(name);
    expected["rope_parameters"] = theta;
    expected["bos_token_id"] = {int64_t{5}};
    EXPECT_EQ(io::to_json(io::read_config_file(folder.path() / "again" / "config.json"), "test"),
              io::to_json(expected, "test"));
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
            "load: ./model.safetensors: " + norm + " is missing");
  EXPECT_EQ(message_with([](auto& state) { state.erase("lm_head.weight"); }),
            "load: ./model.safetensors: lm_head.weight is missing");
  for (const auto* name : {"model.norm.bias",
                           "lm_head.weight_scale",
                           "model.embed_tokens.weight.absmax",
                           "model.layers.0.self_attn.q_proj.bias",
                           "model.layers.2.input_layernorm.weight"}) {
    EXPECT_EQ(message_with([&](auto& state) { state[name] = torch::ones(1); }),
              fmt::format("load: ./model.safetensors: {} is not a parameter of this model", name));
  }
  EXPECT_EQ(message_with([&](auto& state) { state[norm] = torch::ones(47); }),
            "load: ./model.safetensors: " + norm + " must have shape [48], got [47]");
  EXPECT_EQ(message_with([&](auto& state) { state[norm] = torch::ones(48, at::kLong); }),
            "load: ./model.safetensors: " + norm + " must be floating point, got Long");
  EXPECT_EQ(message_with([](auto& state) {
              state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch::ones(8);
            }),
            "no error");
  EXPECT_EQ(message_with([&](auto& state) { state[norm] = torch::ones(48, at::kBFloat16); }),
            "no error");
}

TEST(LoadPretrained, AConfigurationThatDoesNotFitIsNamedWithItsFile) {
  EXPECT_EQ(message_with_config("num_hidden_layers", {int64_t{3}}),
            "load: ./model.safetensors: model.layers.2.input_layernorm.weight is missing");
  EXPECT_EQ(message_with_config("num_hidden_layers", {int64_t{1}}),
            "load: ./model.safetensors: model.layers.1.input_layernorm.weight is not a parameter "
            "of this model");
  EXPECT_EQ(message_with_config("num_hidden_layers", {int64_t{9'999}}),
            "load: ./model.safetensors: model.layers.2.input_layernorm.weight is missing");
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

TEST(LoadPretrained, SizesBeyondTheFilesAreNamedBeforeAModelIsMade) {
  EXPECT_EQ(message_with_config("vocab_size", {int64_t{1} << 40}),
            "load: ./model.safetensors: model.embed_tokens.weight must have shape [1099511627776, "
            "48], got [61, 48]");
  EXPECT_EQ(message_with_config("vocab_size", {int64_t{1} << 62}),
            "load: ./config.json: config: vocab_size * hidden_size must be at most "
            "72057594037927936, got 4611686018427387904 * 48");
  EXPECT_EQ(message_with_config("head_dim", {int64_t{1} << 32}),
            "load: ./model.safetensors: model.layers.0.self_attn.q_proj.weight must have shape "
            "[17179869184, 48], got [64, 48]");
}

TEST(LoadPretrained, ErrorsNameTheFileOfSeveral) {
  const TemporaryFolder folder;
  const auto config = tiny_config();
  save_pretrained(*tiny_model(config), folder.path(), {}, {.max_shard_size = 16'000});
  const auto message = [&](const std::string& key, int64_t value) {
    auto fields = io::read_config_file(folder.path() / "config.json");
    fields[key] = {value};
    folder.write("config.json", io::to_json(fields, "test"));
    const auto said = message_of(folder, [&] { load_pretrained(folder.path() / "."); });
    fields = config.to_map();
    folder.write("config.json", io::to_json(fields, "test"));
    return said;
  };
  EXPECT_EQ(message("num_hidden_layers", 3),
            "load: ./model.safetensors.index.json: model.layers.2.input_layernorm.weight is "
            "missing");
  const auto shape = message("vocab_size", 62);
  EXPECT_TRUE(shape.starts_with("load: ./model-00001-of-0") &&
              shape.ends_with(".safetensors: model.embed_tokens.weight must have shape [62, 48], "
                              "got [61, 48]"))
      << shape;
}

TEST(LoadPretrained, TensorsOfOtherPartsStayUntouchedWithAWarning) {
  class Heard : public c10::WarningHandler {
   public:
    void process(const c10::Warning& warning) override { said.push_back(warning.msg()); }
    std::vector<std::string> said;
  };
  Heard heard;
  const c10::WarningUtils::WarningHandlerGuard guard(&heard);
  EXPECT_EQ(message_with([](auto& state) {
              for (const auto* name : {"a", "b.weight", "model.vision_tower.x", "z"}) {
                state[name] = torch::ones(1, at::kLong);
              }
            }),
            "no error");
  ASSERT_EQ(heard.said.size(), 1);
  EXPECT_TRUE(
      heard.said[0].ends_with(": 4 tensors belong to no part of this model and are "
                              "ignored: a, b.weight, model.vision_tower.x, ..."))
      << heard.said[0];
  heard.said.clear();
  EXPECT_EQ(message_with([](auto&) {}), "no error");
  EXPECT_TRUE(heard.said.empty());
}

// As transformers' AutoConfig has it, which makes Ministral's class of them.
TEST(LoadPretrained, AMistralFolderWithLayerTypesIsMinistrals) {
  const TemporaryFolder folder;
  const auto model = tiny_model(tiny_config(8));
  save_pretrained(*model, folder.path());
  auto fields = io::read_config_file(folder.path() / "config.json");
  fields["layer_types"] = {ConfigList{{"full_attention"}, {"sliding_attention"}}};
  folder.write("config.json", io::to_json(fields, "test"));
  save_prepacked(fields, tensors_to_save(*model), folder.path());
  for (const auto& loaded : {load_pretrained(folder.path()), load_prepacked(folder.path())}) {
    EXPECT_EQ(loaded->config().model_type, "ministral");
    EXPECT_EQ(loaded->config().layer_windows, (std::vector<int64_t>{0, 8}));
  }
  fields["layer_types"] = {nullptr};
  folder.write("config.json", io::to_json(fields, "test"));
  EXPECT_EQ(load_pretrained(folder.path())->config().model_type, "ministral");
  EXPECT_EQ(load_pretrained(folder.path())->config().layer_windows, (std::vector<int64_t>{8, 8}));
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
            "load: .: must hold model.safetensors, model.safetensors.index.json, "
            "consolidated.safetensors or consolidated.safetensors.index.json, got none of them");
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
