#include "mistral_ext/io/sharded_safetensors.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "io/temporary_folder.h"

namespace mistral_ext::io {
namespace {

std::string one_byte(const std::string& name, char value) {
  return safetensors_bytes("{\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                           {value});
}

class Sharded : public testing::Test {
 protected:
  Sharded() {
    folder.write("1.safetensors", one_byte("a", 1));
    folder.write("2.safetensors", one_byte("b", 2));
  }
  std::string message(const std::string& index) {
    const auto path = folder.write("index.json", index);
    return message_of(folder, [&] { ShardedSafetensors{path}; });
  }
  std::string message_of_file(const std::string& file) {
    return message("{\"weight_map\":{\"a\":" + file + "}}");
  }

  TemporaryFolder folder;
};

TEST_F(Sharded, GivesEachTensorOutOfItsFile) {
  const ShardedSafetensors source(
      folder.write("index.json",
                   R"({"metadata":{"total_size":[1,{"x":2}],"weight_map":3},)"
                   R"("weight_map":{"b":"2.safetensors","a":"1.safetensors"},"more":[[]]})"));
  EXPECT_EQ(source.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(source.tensor("a").item<int64_t>(), 1);
  EXPECT_EQ(source.converted("b", at::kFloat, at::kCPU).item<float>(), 2.F);
  EXPECT_EQ(source.find("c"), nullptr);
  EXPECT_EQ(message_of(folder, [&] { source.tensor("c"); }),
            "load: index.json: c must be in the weight_map, got none");
}

TEST_F(Sharded, AFileOutsideTheFolderIsRefused) {
  for (const std::string name : {"../1.safetensors",
                                 "/etc/passwd",
                                 "..",
                                 ".",
                                 "",
                                 "x/1.safetensors",
                                 "1.safetensors\\u0000"}) {
    EXPECT_TRUE(
        message_of_file("\"" + name + "\"")
            .starts_with("load: index.json: weight_map: a must be the name of a file in the "
                         "same folder, got \""))
        << name;
  }
}

TEST_F(Sharded, AnIndexOfAnotherFormIsRefused) {
  const std::string no_name =
      "load: index.json: weight_map: a must be the name of a file in the same folder, got no "
      "string";
  EXPECT_EQ(message_of_file("1"), no_name);
  EXPECT_EQ(message_of_file("[\"1.safetensors\"]"), no_name);
  EXPECT_EQ(message_of_file("{}"), no_name);
  EXPECT_EQ(message("{}"), "load: index.json: weight_map must be given, got none");
  EXPECT_EQ(message("[]"), "load: index.json: must hold a JSON object, got a list");
  EXPECT_EQ(message("1"), "load: index.json: must hold a JSON object, got another value");
  EXPECT_EQ(message("{\"weight_map\":[\"1.safetensors\"]}"),
            "load: index.json: weight_map must be a mapping, got a list");
  EXPECT_EQ(message("{\"weight_map\":\"1.safetensors\"}"),
            "load: index.json: weight_map must be a mapping, got another value");
  EXPECT_EQ(message(R"({"weight_map":{"a":"1.safetensors","a":"2.safetensors"}})"),
            "load: index.json: weight_map: a must be given once, got it twice");
  EXPECT_EQ(message(R"({"weight_map":{},"weight_map":{}})"),
            "load: index.json: weight_map must be given once, got it twice");
  EXPECT_EQ(message("{\"weight_map\":{\"a\":"),
            "load: index.json: must be JSON in UTF-8, and is none at byte 20");
  EXPECT_EQ(message("{\"x\":" + std::string(100'000, '[')),
            "load: index.json: must be JSON of at most 64 levels, got more");
}

TEST_F(Sharded, AFileThatIsMissingOrLacksItsTensorIsNamed) {
  EXPECT_EQ(message_of_file("\"3.safetensors\""),
            "load: 3.safetensors: must be a readable file, got \"No such file or directory\"");
  EXPECT_EQ(message_of_file("\"2.safetensors\""),
            "load: index.json: weight_map: a must be in 2.safetensors, which has no such tensor");
  std::filesystem::create_symlink("3.safetensors", folder.path() / "3.safetensors");
  EXPECT_EQ(
      message_of_file("\"3.safetensors\""),
      "load: 3.safetensors: must be a readable file, got \"Too many levels of symbolic links\"");
}

}  // namespace
}  // namespace mistral_ext::io
