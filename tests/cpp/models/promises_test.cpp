// Small files that promise much: what they say is refused before memory is taken for it.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "io/child_process.h"
#include "io/temporary_folder.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/models/load_pretrained.h"
#include "models/tiny_model.h"

namespace mistral_ext::models {
namespace {

using io::in_child;
using io::message_of;
using io::safetensors_bytes;
using io::TemporaryFolder;

// For messages, the model's skeleton and, in the sanitizers' build, what they keep of freed memory.
constexpr int64_t kMostKibibytes = 24 * 1024;

int64_t peak_kibibytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// What loading a folder of these two files says, or how many KiB more than before it took where
// that is much.
std::string message(const ConfigMap& config, const std::string& tensors) {
  const TemporaryFolder folder;
  folder.write("config.json", io::to_json(config, "test"));
  folder.write("model.safetensors", tensors);
  return in_child([&] {
    // Once, so that what the first error needs is there.
    message_of(folder, [&] { load_pretrained(folder.path() / "none"); });
    const auto before = peak_kibibytes();
    auto answer = message_of(folder, [&] { load_pretrained(folder.path() / "."); });
    const auto more = peak_kibibytes() - before;
    return more < kMostKibibytes ? answer : "took " + std::to_string(more) + " KiB";
  });
}

ConfigMap tiny_map(const std::string& key, int64_t value) {
  auto map = tiny_config().to_map();
  map[key] = {value};
  return map;
}

std::string header(const std::string& name, const std::string& shape, int64_t bytes) {
  return "{\"" + name + R"(":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,)" +
         std::to_string(bytes) + "]}}";
}

TEST(Promises, AHeaderOfAHundredMegabytesThatIsNotThere) {
  std::string bytes = {'\x00', '\xE1', '\xF5', '\x05', 0, 0, 0, 0, '{', '}'};
  EXPECT_EQ(message(tiny_config().to_map(), bytes),
            "load: ./model.safetensors: the header's length must be within the file's 10 bytes, "
            "got 100000000");
}

TEST(Promises, ATensorLargerThanItsFile) {
  const int64_t bytes = int64_t{1} << 62;
  EXPECT_EQ(message(tiny_config().to_map(),
                    safetensors_bytes(header("a", std::to_string(bytes), bytes), "12")),
            "load: ./model.safetensors: a: data_offsets must be within the 2 bytes of data, got "
            "4611686018427387904");
}

TEST(Promises, LayersThatAreNotThere) {
  const auto last = header("model.layers.9999.input_layernorm.weight", "1", 1);
  auto config = tiny_map("num_hidden_layers", 10'000);
  config["dtype"] = {"float32"};
  EXPECT_EQ(message(config, safetensors_bytes(last, "1")),
            "load: ./model.safetensors: model.layers.0.input_layernorm.weight is missing");
  config["num_hidden_layers"] = {int64_t{1} << 60};
  EXPECT_EQ(message(config, safetensors_bytes(last, "1")),
            "load: ./config.json: config: num_hidden_layers must be at most 10000, got "
            "1152921504606846976");
}

TEST(Promises, WeightsThatAreNotThere) {
  for (const char* key : {"hidden_size", "intermediate_size", "vocab_size", "head_dim"}) {
    auto config = tiny_map(key, int64_t{1} << 40);
    config["dtype"] = {"float32"};
    const auto text = message(config, safetensors_bytes("{}"));
    EXPECT_EQ(text, "load: ./model.safetensors: model.layers.0.input_layernorm.weight is missing")
        << key;
  }
}

TEST(Promises, ValuesInsideValues) {
  const TemporaryFolder folder;
  folder.write("config.json", "{\"a\":" + std::string(4'000'000, '['));
  const auto answer = in_child([&] {
    const auto before = peak_kibibytes();
    auto text = message_of(folder, [&] { load_pretrained(folder.path() / "."); });
    const auto more = peak_kibibytes() - before;
    return more < kMostKibibytes ? text : "took " + std::to_string(more) + " KiB";
  });
  EXPECT_EQ(answer, "load: ./config.json: must be JSON of at most 64 levels, got more");
}

}  // namespace
}  // namespace mistral_ext::models
