#include "mistral_ext/models/prepacked.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>
#include <fstream>
#include <functional>

#include "io/temporary_folder.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/prepacked_file.h"
#include "mistral_ext/models/parameter_shapes.h"
#include "models/tiny_model.h"

namespace mistral_ext::models {
namespace {

using io::message_of;
using io::TemporaryFolder;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A saved tiny model's file, changed by `change`, and what loading it says.
std::string message_with(const std::function<void(std::string&)>& change, bool verify = false) {
  const TemporaryFolder folder;
  save_prepacked(*tiny_model(), folder.path());
  auto bytes = read(folder.path() / kPrepackedFile);
  change(bytes);
  folder.write(kPrepackedFile, bytes);
  return message_of(folder, [&] { load_prepacked(folder.path(), {.verify = verify}); });
}

// The header with one text replaced by another of the same length.
std::string message_with_header(const std::string& from, const std::string& to) {
  EXPECT_EQ(from.size(), to.size());
  return message_with([&](std::string& bytes) {
    const auto at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    bytes.replace(at, from.size(), to);
  });
}

// A file of the format with these fields, and what loading it says.
std::string message_of_saving(const std::function<void(ConfigMap&)>& change_config,
                              const std::function<void(io::NamedTensors&)>& change_tensors = {}) {
  const TemporaryFolder folder;
  const auto model = tiny_model();
  auto config = model->config().to_map();
  change_config(config);
  io::NamedTensors tensors;
  for (const auto& [name, tensor] : state_dict(*model)) tensors.emplace_back(name, tensor);
  if (change_tensors) change_tensors(tensors);
  io::AtomicFile file(folder.path() / kPrepackedFile);
  io::write_prepacked(file, config, tensors);
  file.finish();
  file.commit();
  return message_of(folder, [&] { load_prepacked(folder.path()); });
}

std::shared_ptr<MistralForCausalLM> maybe_tied_model(bool tied) {
  auto config = tiny_config();
  config.tie_word_embeddings = tied;
  return tiny_model(config);
}

const std::string kLabel = std::string("load: ") + kPrepackedFile;

TEST(Prepacked, WhatWasSavedComesBackFromTheMapping) {
  for (const bool tied : {false, true}) {
    const TemporaryFolder folder;
    const auto model = maybe_tied_model(tied);
    const auto state = state_dict(*model);
    save_prepacked(*model, folder.path() / "new" / "folder", {{"eos_token_id", {int64_t{2}}}});
    const auto again = load_prepacked(folder.path() / "new" / "folder", {.verify = true});
    const auto weights = state_dict(*again);
    ASSERT_EQ(weights.size(), state.size());
    for (const auto& [name, weight] : weights) {
      EXPECT_TRUE(torch::equal(weight, state.at(name))) << name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(weight.data_ptr()) % 64, 0) << name;
    }
    const auto read = read_prepacked_config(folder.path() / "new" / "folder");
    EXPECT_EQ(std::get<int64_t>(read.at("eos_token_id").value), 2);
  }
}

TEST(Prepacked, ItIsConvertedToTheDtypeThatIsAskedFor) {
  const TemporaryFolder folder;
  const auto model = tiny_model();
  save_prepacked(*model, folder.path());
  const auto mapped = state_dict(*load_prepacked(folder.path(), {.dtype = at::kFloat}));
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kDouble}) {
    const auto weights = state_dict(*load_prepacked(folder.path(), {.dtype = dtype}));
    for (const auto& [name, weight] : state_dict(*model)) {
      EXPECT_TRUE(torch::equal(weights.at(name), weight.to(dtype))) << name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(mapped.at(name).data_ptr()) % 64, 0) << name;
    }
  }
  EXPECT_EQ(message_of(folder, [&] { load_prepacked(folder.path(), {.dtype = at::kInt}); }),
            kLabel + ": dtype must be float32, bfloat16, float16 or float64, got Int");
}

TEST(Prepacked, ItTrainsWhereThatIsAskedForAndTheFileStays) {
  for (const bool tied : {false, true}) {
    const TemporaryFolder folder;
    const auto model = maybe_tied_model(tied);
    const auto state = state_dict(*model);
    save_prepacked(*model, folder.path());
    const auto before = read(folder.path() / kPrepackedFile);
    for (const auto& parameter : load_prepacked(folder.path())->parameters()) {
      EXPECT_FALSE(parameter.requires_grad());
    }
    const auto trained = load_prepacked(folder.path(), {.requires_grad = true});
    EXPECT_EQ(trained->parameters().size(), state.size());
    const auto ids = torch::tensor({{1, 2, 3, 4}});
    ModelInputs inputs;
    inputs.input_ids = ids;
    trained->loss(inputs, ids).backward();
    const torch::NoGradGuard no_gradients;
    for (auto& parameter : trained->parameters()) {
      ASSERT_TRUE(parameter.grad().defined());
      parameter.sub_(parameter.grad());
    }
    EXPECT_EQ(read(folder.path() / kPrepackedFile), before);
  }
}

TEST(Prepacked, TheTableOfParametersIsThatOfTheModel) {
  const auto model = tiny_model();
  const auto modules = weighted_modules(*model);
  const auto shapes = parameter_shapes(model->config());
  EXPECT_EQ(shapes.size(), modules.size());
  for (const auto& [name, shape] : shapes) {
    ASSERT_TRUE(modules.contains(name)) << name;
    EXPECT_EQ(modules.at(name)->shape(), at::IntArrayRef(shape)) << name;
  }
}

TEST(Prepacked, LargeTensorsBeginAtAPage) {
  const TemporaryFolder folder;
  io::AtomicFile file(folder.path() / "file");
  io::write_prepacked(file,
                      {},
                      {{"small", torch::ones(3)},
                       {"large", torch::ones({64, 64})},
                       {"odd", torch::ones(1000)},
                       {"larger", torch::ones({128, 64})}});
  file.finish();
  file.commit();
  const io::PrepackedFile again(folder.path() / "file");
  EXPECT_EQ(again.names(), (std::vector<std::string>{"large", "larger", "odd", "small"}));
  for (const auto& name : again.names()) {
    const auto address = reinterpret_cast<uintptr_t>(again.tensor(name).data_ptr());
    EXPECT_EQ(address % (name.starts_with("large") ? 4096 : 64), 0) << name;
  }
  again.verify();
}

TEST(Prepacked, AFileThatWasCutAnywhereIsRefused) {
  const TemporaryFolder folder;
  save_prepacked(*tiny_model(), folder.path());
  const auto bytes = read(folder.path() / kPrepackedFile);
  for (size_t length = 0; length < bytes.size(); length += length < 5000 ? 97 : 4099) {
    folder.write(kPrepackedFile, bytes.substr(0, length));
    const auto message = message_of(folder, [&] { load_prepacked(folder.path()); });
    EXPECT_TRUE(message.starts_with(kLabel)) << length << " " << message;
  }
}

TEST(Prepacked, AnotherVersionOrFormatIsNamed) {
  EXPECT_EQ(message_with_header(R"("format_version":"1")", R"("format_version":"2")"),
            kLabel +
                ": __metadata__: format_version must be 1, got 2: this release reads no other; "
                "save the model with it again");
  EXPECT_EQ(message_with_header("mistral_ext.prepacked", "mistral_ext.something"),
            kLabel +
                ": __metadata__: format must be \"mistral_ext.prepacked\", got "
                "\"mistral_ext.something\"");
  EXPECT_EQ(message_with_header(R"("format_version")", R"("format_versiom")"),
            kLabel + ": __metadata__: format_version must be given, got none");
  EXPECT_EQ(message_with_header(R"("header_xxh3")", R"("header_xxh4")"),
            kLabel + ": __metadata__: header_xxh3 must be given, got none");
}

TEST(Prepacked, ADamagedHeaderIsFoundAtOnce) {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {R"("layout":"separate")", R"("layout":"separatf")"},
           {R"("world_size":"1")", R"("world_size":"2")"},
           {R"(\"hidden_size\":48)", R"(\"hidden_size\":49)"},
           {R"("xxh3:model.norm.weight")", R"("xxh3:model.norn.weight")"},
           {"model.layers.0.mlp.up_proj.weight\":{", "model.layers.0.mlp.uq_proj.weight\":{"},
           {R"("dtype":"F32")", R"("dtype":"I32")"}}) {
    const auto message = message_with_header(from, to);
    EXPECT_TRUE(message.starts_with(kLabel + ": the header must have the checksum ")) << message;
  }
}

TEST(Prepacked, DamagedBytesAreFoundWhereTheyAreLookedForAndNamed) {
  const auto damage = [](std::string& bytes) { bytes.back() ^= 1; };
  EXPECT_EQ(message_with(damage), "no error");
  const auto message = message_with(damage, /*verify=*/true);
  EXPECT_TRUE(message.starts_with(kLabel + ": lm_head.weight must have the checksum ")) << message;
}

TEST(Prepacked, AConfigurationThatDoesNotFitTheTensorsIsNamed) {
  const auto with = [](const char* name, ConfigValue value) {
    return message_of_saving([&](ConfigMap& config) { config[name] = value; });
  };
  EXPECT_EQ(with("num_hidden_layers", {int64_t{9'999}}),
            kLabel + ": model.layers.9998.input_layernorm.weight is missing");
  EXPECT_EQ(with("num_hidden_layers", {int64_t{1}}),
            kLabel + ": model.layers.1.input_layernorm.weight is not a parameter of this model");
  EXPECT_EQ(with("vocab_size", {int64_t{62}}),
            kLabel + ": model.embed_tokens.weight must have shape [62, 48], got [61, 48]");
  EXPECT_EQ(with("hidden_size", {"wide"}),
            kLabel + ": config: hidden_size must be an integer, got \"wide\"");
  EXPECT_EQ(with("hidden_act", {"gelu"}), kLabel + ": config: hidden_act must be silu, got gelu");
}

TEST(Prepacked, ATensorThatDoesNotBelongIsNamed) {
  const auto with = [](const std::function<void(io::NamedTensors&)>& change) {
    return message_of_saving([](ConfigMap&) {}, change);
  };
  EXPECT_EQ(with([](auto& tensors) { tensors.emplace_back("more.weight", torch::ones(16)); }),
            kLabel + ": more.weight is not a parameter of this model");
  EXPECT_EQ(with([](auto& tensors) { tensors.erase(tensors.begin()); }),
            kLabel + ": lm_head.weight is missing");
  EXPECT_EQ(with([](auto& tensors) { tensors.front().second = torch::ones({61, 48}, at::kHalf); }),
            kLabel + ": lm_head.weight must be Float as the embedding, got Half");
  EXPECT_EQ(with([](auto& tensors) {
              for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kInt);
            }),
            kLabel +
                ": model.embed_tokens.weight must be float32, bfloat16, float16 or float64, "
                "got Int");
}

TEST(Prepacked, AFullDiskLeavesTheOldFileAndNothingElse) {
  const TemporaryFolder folder;
  const auto model = tiny_model();
  save_prepacked(*model, folder.path());
  const auto before = read(folder.path() / kPrepackedFile);
  // A limit of the files' size stands for the disk's.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit limit{before.size() / 2, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto message =
      message_of(folder, [&] { save_prepacked(*model, folder.path(), {{"mark", {"new"}}}); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_EQ(message,
            std::string("save: ") + kPrepackedFile +
                ": must be a file that can be written, got \"File too large\"");
  EXPECT_EQ(read(folder.path() / kPrepackedFile), before);
  const auto files = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

}  // namespace
}  // namespace mistral_ext::models
