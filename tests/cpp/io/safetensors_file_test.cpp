#include "mistral_ext/io/safetensors_file.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "io/temporary_folder.h"

namespace mistral_ext::io {
namespace {

constexpr const char* kTwo =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
    R"("a":{"dtype":"I64","shape":[],"data_offsets":[16,24]}})";

std::string two_data() {
  const std::array<float, 4> b = {1, 2, 3, 4};
  const int64_t a = -5;
  return std::string(reinterpret_cast<const char*>(b.data()), 16) +
         std::string(reinterpret_cast<const char*>(&a), 8);
}

std::string message(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto path = folder.write("f", bytes);
  return message_of(folder, [&] { SafetensorsFile{path}; });
}

// What is said of one tensor's entry beside 16 bytes of data.
std::string message_of_entry(const std::string& entry, const std::string& rest = "") {
  return message(safetensors_bytes("{\"t\":" + entry + rest + "}", std::string(16, '\0')));
}

TEST(SafetensorsFile, GivesTensorsAsTheyAreStored) {
  const TemporaryFolder folder;
  const SafetensorsFile file(folder.write("f", safetensors_bytes(kTwo, two_data())));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.find("b")->shape, (std::vector<int64_t>{2, 2}));
  EXPECT_TRUE(torch::equal(file.tensor("b"), torch::tensor({{1.F, 2.F}, {3.F, 4.F}})));
  EXPECT_EQ(file.tensor("a").item<int64_t>(), -5);
  EXPECT_EQ(message_of(folder, [&] { file.tensor("c"); }),
            "load: f: c must be in the file, got none");
}

TEST(SafetensorsFile, TensorsOutliveTheFileAndTheirUpdatesDoNotReachIt) {
  const TemporaryFolder folder;
  // The elements lie where their dtype's belong, or they would be copied.
  const std::string spaces(8 - std::string(kTwo).size() % 8, ' ');
  const auto path = folder.write("f", safetensors_bytes(kTwo + spaces, two_data()));
  at::Tensor b;
  {
    const SafetensorsFile file(path);
    b = file.tensor("b");
    b.add_(1);
    EXPECT_TRUE(torch::equal(file.tensor("b"), b));
  }
  std::filesystem::remove(path);
  EXPECT_TRUE(torch::equal(b, torch::tensor({{2.F, 3.F}, {4.F, 5.F}})));
  const SafetensorsFile again(folder.write("f", safetensors_bytes(kTwo, two_data())));
  EXPECT_EQ(again.tensor("b")[0][0].item<float>(), 1.F);
}

TEST(SafetensorsFile, EveryDtypeIsReadAsStoredAndConvertedByValue) {
  const std::vector<std::pair<std::string, at::ScalarType>> dtypes = {
      {"BOOL", at::kBool},
      {"U8", at::kByte},
      {"I8", at::kChar},
      {"U16", at::kUInt16},
      {"I16", at::kShort},
      {"U32", at::kUInt32},
      {"I32", at::kInt},
      {"U64", at::kUInt64},
      {"I64", at::kLong},
      {"F16", at::kHalf},
      {"BF16", at::kBFloat16},
      {"F32", at::kFloat},
      {"F64", at::kDouble},
      {"C64", at::kComplexFloat},
      {"F8_E4M3", at::kFloat8_e4m3fn},
      {"F8_E5M2", at::kFloat8_e5m2}};
  const TemporaryFolder folder;
  for (const auto& [name, dtype] : dtypes) {
    SCOPED_TRACE(name);
    const auto values = torch::tensor({0.F, 1.F, 1.F, 0.F, 1.F, 0.F}).to(dtype);
    const auto bytes = static_cast<size_t>(values.nbytes());
    const std::string data(static_cast<const char*>(values.const_data_ptr()), bytes);
    const auto header = "{\"t\":{\"dtype\":\"" + name + "\",\"shape\":[3,2],\"data_offsets\":[0," +
                        std::to_string(bytes) + "]}}";
    // Once with elements where they belong, and once one byte beside.
    for (const size_t spaces : {(16 - header.size() % 8) % 8, (17 - header.size() % 8) % 8}) {
      const SafetensorsFile file(
          folder.write("f", safetensors_bytes(header + std::string(spaces, ' '), data)));
      const auto stored = file.tensor("t");
      EXPECT_EQ(stored.scalar_type(), dtype);
      EXPECT_EQ(stored.sizes(), (at::IntArrayRef{3, 2}));
      const auto expected = torch::tensor({{0.F, 1.F}, {1.F, 0.F}, {1.F, 0.F}});
      EXPECT_TRUE(torch::equal(torch::real(stored.to(at::kComplexFloat)), expected));
      EXPECT_TRUE(
          torch::equal(torch::real(file.converted("t", at::kComplexFloat, at::kCPU)), expected));
      EXPECT_TRUE(torch::equal(file.converted("t", dtype, at::kCPU).to(at::kComplexFloat),
                               stored.to(at::kComplexFloat)));
    }
  }
}

TEST(SafetensorsFile, ConvertsMoreThanOnePieceAndNothingAtAll) {
  const TemporaryFolder folder;
  const auto values = torch::arange(700'001, at::kInt).to(at::kFloat);
  const std::string data(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
  const SafetensorsFile file(folder.write(
      "f",
      safetensors_bytes(R"({"t":{"dtype":"F32","shape":[700001],"data_offsets":[0,2800004]},)"
                        R"("e":{"dtype":"BF16","shape":[0,5],"data_offsets":[0,0]}})",
                        data)));
  EXPECT_TRUE(torch::equal(file.converted("t", at::kDouble, at::kCPU), values.to(at::kDouble)));
  EXPECT_EQ(file.tensor("e").sizes(), (at::IntArrayRef{0, 5}));
  EXPECT_EQ(file.converted("e", at::kFloat, at::kCPU).sizes(), (at::IntArrayRef{0, 5}));
}

TEST(SafetensorsFile, WhatIsNotAskedForIsNotTouched) {
  // A hole of 64 GiB in the file, more than the machine may have.
  const TemporaryFolder folder;
  const int64_t bytes = int64_t{64} << 30;
  const auto header = R"({"small":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                      R"("large":{"dtype":"U8","shape":[)" +
                      std::to_string(bytes) + R"(],"data_offsets":[2,)" +
                      std::to_string(bytes + 2) + "]}}";
  const auto path = folder.write("f", safetensors_bytes(header, "\1\2"));
  std::error_code error;
  std::filesystem::resize_file(path, std::filesystem::file_size(path) + bytes, error);
  if (error) GTEST_SKIP() << "no sparse files here";
  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensor("small").sum().item<int64_t>(), 3);
  EXPECT_EQ(file.tensor("large")[bytes - 1].item<int64_t>(), 0);
}

TEST(SafetensorsFile, AFileCutAnywhereIsRefused) {
  const auto whole = safetensors_bytes(kTwo, two_data());
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_NE(message(whole.substr(0, length)), "no error") << length;
  }
  EXPECT_EQ(message(""),
            "load: f: must begin with the 8 bytes of the header's length, got 0 bytes");
  EXPECT_EQ(message(whole.substr(0, 100)),
            "load: f: the header's length must be within the file's 100 bytes, got " +
                std::to_string(std::string(kTwo).size()));
  EXPECT_EQ(message(whole.substr(0, whole.size() - 1)),
            "load: f: a: data_offsets must be within the 23 bytes of data, got 24");
  EXPECT_EQ(message(whole + "x"), "load: f: the tensors must fill the 25 bytes of data, got 24");
}

TEST(SafetensorsFile, ALengthOfTheHeaderBeyondAllFilesIsRefused) {
  EXPECT_EQ(message(std::string(8, '\xFF') + "{}"),
            "load: f: the header's length must be at most 100000000, got 18446744073709551615");
}

TEST(SafetensorsFile, AHeaderOfAnotherFormIsRefused) {
  const auto header = [](const std::string& text) { return message(safetensors_bytes(text)); };
  EXPECT_EQ(header("{}"), "no error");
  EXPECT_EQ(header("{}   "), "no error");
  EXPECT_EQ(header(""), "load: f: the header must be a JSON object, got none");
  EXPECT_EQ(header("[]"), "load: f: the header must be a JSON object, got none");
  EXPECT_EQ(header("{\"t\":7}"), "load: f: t must be a JSON object, got another value");
  EXPECT_EQ(header("{\"t\":[]}"), "load: f: t must be of the form that the format has, got a list");
  EXPECT_EQ(header("{\"\xFF\":{}}"),
            "load: f: the header: must be JSON in UTF-8, and is none at byte 3");
  EXPECT_EQ(header("{} {}"), "load: f: the header: must be JSON in UTF-8, and is none at byte 4");
  EXPECT_EQ(header("{\"a\":{\"dtype\":{\"b\":1}}}"),
            "load: f: a: dtype must be of the form that the format has, got an object");
  std::string deep(1'000'000, '[');
  EXPECT_EQ(header("{\"t\":" + deep),
            "load: f: t must be of the form that the format has, got a list");
  EXPECT_EQ(header("{\"__metadata__\":{\"a\":1}}"),
            "load: f: __metadata__: a must be a string, got another value");
  EXPECT_EQ(header("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}"),
            "load: f: __metadata__: a must be given once, got it twice");
  EXPECT_EQ(header("{\"__metadata__\":{},\"__metadata__\":{}}"),
            "load: f: __metadata__ must be given once, got it twice");
  EXPECT_EQ(header("{\"__metadata__\":\"a\"}"),
            "load: f: __metadata__ must be a JSON object, got another value");
}

TEST(SafetensorsFile, AnEntryThatIsWrongIsNamedWithItsField) {
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})"), "no error");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F4","shape":[32],"data_offsets":[0,16]})"),
            "load: f: t: dtype must be a dtype that torch has, got F4");
  EXPECT_EQ(message_of_entry(R"({"dtype":32,"shape":[4],"data_offsets":[0,16]})"),
            "load: f: t: dtype must be a string, got another value");
  EXPECT_EQ(message_of_entry(R"({"dtype":["F32"],"shape":[4],"data_offsets":[0,16]})"),
            "load: f: t: dtype must be a string, got a list");
  EXPECT_EQ(message_of_entry(R"({"shape":[4],"data_offsets":[0,16]})"),
            "load: f: t must have a dtype, got none");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","data_offsets":[0,16]})"),
            "load: f: t must have a shape, got none");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4]})"),
            "load: f: t must have two data_offsets, got fewer");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[16]})"),
            "load: f: t must have two data_offsets, got fewer");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[0,8,16]})"),
            "load: f: t: data_offsets must have at most 2 entries, got more");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})"),
            "load: f: t: data_offsets must not fall, got 16 and 0");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F64","shape":[4],"data_offsets":[0,16]})"),
            "load: f: t: data_offsets must span the 32 bytes of its shape and dtype, got 16");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[0,4],"data_offsets":[0,16]})"),
            "load: f: t: data_offsets must span the 0 bytes of its shape and dtype, got 16");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[-4],"data_offsets":[0,16]})"),
            "load: f: t: shape must hold integers from 0 to 2^63 - 1, got another value");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4.0],"data_offsets":[0,16]})"),
            "load: f: t: shape must hold integers from 0 to 2^63 - 1, got another value");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":4,"data_offsets":[0,16]})"),
            "load: f: t: shape must be a list of integers, got another value");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[[4]],"data_offsets":[0,16]})"),
            "load: f: t: shape must be of the form that the format has, got a list");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]})"),
            "load: f: t: shape must be given once, got it twice");
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1})"),
            "load: f: t: x must be no field of a tensor, got it");
  std::string shape = "[4";
  for (int i = 0; i < 64; ++i) shape += ",1";
  EXPECT_EQ(message_of_entry(R"({"dtype":"F32","shape":)" + shape + R"(],"data_offsets":[0,16]})"),
            "load: f: t: shape must have at most 64 entries, got more");
}

TEST(SafetensorsFile, SizesThatOverflowAreRefused) {
  EXPECT_EQ(
      message_of_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[0,9223372036854775808]})"),
      "load: f: t: data_offsets must hold integers from 0 to 2^63 - 1, got another value");
  EXPECT_EQ(
      message_of_entry(
          R"({"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]})"),
      "load: f: t: data_offsets must be within the 16 bytes of data, got 9223372036854775807");
  EXPECT_EQ(
      message_of_entry(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})"),
      "load: f: t must have fewer than 2^63 bytes by its shape, got more");
  // Its product is 0, its strides' is not.
  EXPECT_EQ(
      message_of_entry(R"({"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})"),
      "load: f: t must have fewer than 2^63 bytes by its shape, got more");
}

TEST(SafetensorsFile, TensorsThatOverlapLeaveHolesOrShareANameAreRefused) {
  const auto entry = [](const char* dtype, const char* offsets) {
    return std::string("{\"dtype\":\"") + dtype + "\",\"shape\":[2],\"data_offsets\":" + offsets +
           "}";
  };
  const auto f32 = [&](const char* offsets) { return entry("F32", offsets); };
  EXPECT_EQ(message_of_entry(f32("[8,16]"), ",\"a\":" + f32("[0,8]")), "no error");
  EXPECT_EQ(message_of_entry(f32("[0,8]"), ",\"t\":" + f32("[8,16]")),
            "load: f: t must be given once, got it twice");
  EXPECT_EQ(message_of_entry(f32("[0,8]"), ",\"u\":" + f32("[4,12]")),
            "load: f: u: data_offsets must begin where the tensor before ends, at 8, got 4");
  EXPECT_EQ(message_of_entry(f32("[0,8]"), ",\"u\":" + f32("[0,8]")),
            "load: f: u: data_offsets must begin where the tensor before ends, at 8, got 0");
  EXPECT_EQ(message_of_entry(f32("[0,8]"), ",\"u\":" + entry("F16", "[12,16]")),
            "load: f: u: data_offsets must begin where the tensor before ends, at 8, got 12");
  EXPECT_EQ(message_of_entry(f32("[8,16]")),
            "load: f: t: data_offsets must begin where the tensor before ends, at 0, got 8");
  EXPECT_EQ(message_of_entry(f32("[0,8]")),
            "load: f: the tensors must fill the 16 bytes of data, got 8");
}

TEST(SafetensorsFile, ALongNameIsCutInTheMessage) {
  std::string header = "{\"";
  header.append(100'000, 'n').append("\":7}");
  const auto text = message(safetensors_bytes(header));
  EXPECT_LT(text.size(), 500);
}

}  // namespace
}  // namespace mistral_ext::io
