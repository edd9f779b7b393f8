#include "mistral_ext/io/config_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>

#include "io/temporary_folder.h"
#include "mistral_ext/io/json.h"

namespace mistral_ext::io {
namespace {

std::string message(const std::string& text) {
  const TemporaryFolder folder;
  folder.write("c.json", text);
  return message_of(folder, [&] { read_config_file(folder.path() / "c.json"); });
}

ConfigMap read(const std::string& text) {
  const TemporaryFolder folder;
  return read_config_file(folder.write("c.json", text));
}

template <class T>
T get(const ConfigMap& map, const std::string& key) {
  return std::get<T>(map.at(key).value);
}

TEST(ConfigFile, ReadsEveryKindOfValue) {
  const auto map =
      read(R"( {"null": null, "yes": true, "int": -3, "float": 1e-6, "text": "gl\u00fcck",
      "list": [1, [], {"in": 2.0}], "map": {"deep": {"er": 5}}, "most": 9223372036854775807} )");
  EXPECT_TRUE(map.at("null").is_null());
  EXPECT_TRUE(get<bool>(map, "yes"));
  EXPECT_EQ(get<int64_t>(map, "int"), -3);
  EXPECT_EQ(get<double>(map, "float"), 1e-6);
  EXPECT_EQ(get<std::string>(map, "text"),
            "gl\xC3\xBC"
            "ck");
  const auto list = get<ConfigList>(map, "list");
  ASSERT_EQ(list.size(), 3);
  EXPECT_EQ(std::get<double>(std::get<ConfigMap>(list[2].value).at("in").value), 2.0);
  EXPECT_EQ(get<int64_t>(get<ConfigMap>(get<ConfigMap>(map, "map"), "deep"), "er"), 5);
  EXPECT_EQ(get<int64_t>(map, "most"), INT64_MAX);
}

TEST(ConfigFile, IntegersBeyondInt64AreDoubles) {
  const auto map = read(R"({"a": 9223372036854775808, "b": -9223372036854775809, "c": 1e300})");
  EXPECT_EQ(get<double>(map, "a"), 9223372036854775808.0);
  EXPECT_EQ(get<double>(map, "b"), -9223372036854775808.0);
  EXPECT_EQ(get<double>(map, "c"), 1e300);
}

TEST(ConfigFile, WhatIsWrittenReadsTheSame) {
  const auto text = R"({
  "a": [
    1,
    2.5,
    null
  ],
  "b": {
    "c": 1e-05,
    "d": "\"\u0001\n"
  }
}
)";
  EXPECT_EQ(to_json(read(text), "save"), text);
  const ConfigMap infinite = {{"a", {std::numeric_limits<double>::infinity()}}};
  EXPECT_THROW(to_json(infinite, "save"), c10::ValueError);
  const ConfigMap no_utf8 = {{"a", {std::string("\xFF")}}};
  EXPECT_THROW(to_json(no_utf8, "save"), c10::ValueError);
}

TEST(ConfigFile, WhatIsNoJsonObjectIsAnErrorThatNamesTheFile) {
  EXPECT_EQ(message(""), "load: c.json: must be JSON in UTF-8, and is none at byte 1");
  EXPECT_EQ(message("[]"), "load: c.json: must hold a JSON object, got another value");
  EXPECT_EQ(message("7"), "load: c.json: must hold a JSON object, got another value");
  EXPECT_EQ(message("{\"a\": 1"), "load: c.json: must be JSON in UTF-8, and is none at byte 8");
  EXPECT_EQ(message("{} {}"), "load: c.json: must be JSON in UTF-8, and is none at byte 4");
  EXPECT_EQ(message("{\"a\": NaN}"), "load: c.json: must be JSON in UTF-8, and is none at byte 7");
  EXPECT_EQ(message(std::string("{}\0", 3)),
            "load: c.json: must be JSON in UTF-8, and is none at byte 3");
  EXPECT_EQ(message("{\"a\": \"\xC3\x28\"}"),
            "load: c.json: must be JSON in UTF-8, and is none at byte 9");
  EXPECT_EQ(message("{\"a\": 1e999}"),
            "load: c.json: must be JSON in UTF-8, and is none at byte 11");
}

TEST(ConfigFile, AKeyThatRepeatsIsNamed) {
  EXPECT_EQ(message(R"({"a": 1, "b": {"c": 1, "c": 2}})"),
            "load: c.json: c must be given once, got it twice");
}

TEST(ConfigFile, DepthAndSizeHaveLimits) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_EQ(message(nested(64)), "no error");
  EXPECT_EQ(message(nested(65)), "load: c.json: must be JSON of at most 64 levels, got more");
  EXPECT_EQ(message(nested(1'000'000)),
            "load: c.json: must be JSON of at most 64 levels, got more");
  std::string many = "{\"a\":[0";
  for (int i = 0; i < 100'000; ++i) many += ",0";
  EXPECT_EQ(message(many + "]}"), "load: c.json: must hold at most 100000 values, got more");
  EXPECT_EQ(message("{}" + std::string(size_t{16} << 20, ' ')),
            "load: c.json: must have at most 16777216 bytes, got 16777218");
}

TEST(ConfigFile, WhatCannotBeReadIsNamedWithTheReason) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& name) {
    return message_of(folder, [&] { read_config_file(folder.path() / name); });
  };
  EXPECT_EQ(message("none"),
            "load: none: must be a readable file, got \"No such file or directory\"");
  std::filesystem::create_directory(folder.path() / "folder");
  EXPECT_EQ(message("folder"), "load: folder: must be a regular file, got a folder");
  std::filesystem::create_symlink("loop", folder.path() / "loop");
  EXPECT_EQ(message("loop"),
            "load: loop: must be a readable file, got \"Too many levels of symbolic links\"");
  // Nobody writes to it: opening must not wait.
  ASSERT_EQ(::mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(message("pipe"), "load: pipe: must be a regular file, got something else");
  folder.write("locked", "{}");
  ::chmod((folder.path() / "locked").c_str(), 0);
  if (::geteuid() != 0) {  // nothing is unreadable for root
    EXPECT_EQ(message("locked"),
              "load: locked: must be a readable file, got \"Permission denied\"");
  }
  // Bytes that are no UTF-8 are legal in a file's name.
  EXPECT_EQ(message("\xFF\n"),
            "load: \\xFF\\x0A: must be a readable file, got \"No such file or directory\"");
}

}  // namespace
}  // namespace mistral_ext::io
