#include "mistral_ext/tokenizers/tekken.h"

#include <gtest/gtest.h>

#include <random>

#include "io/temporary_folder.h"
#include "ops/error_message.h"
#include "tokenizers/tekken_file.h"

namespace mistral_ext::tokenizers {
namespace {

using Ids = std::vector<int64_t>;

using tekken::entry;
using tekken::file;
using tekken::kConfig;
using tekken::vocabulary;

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(Tekken, MergesByRankFromTheLeft) {
  const auto tokenizer = parse_tekken(file(), "load: t");
  EXPECT_EQ(tokenizer->vocab_size(), 281);
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{1, 258 + 22}));
  EXPECT_EQ(tokenizer->encode("bcab", {false, false}), (Ids{257 + 22, 256 + 22}));
  EXPECT_EQ(tokenizer->encode("ab abbc", {false, false}),
            (Ids{256 + 22, 32 + 22, 256 + 22, 257 + 22}));
  // ! is in no part of the pattern.
  EXPECT_EQ(tokenizer->encode("a!b", {false, false}), (Ids{97 + 22, 98 + 22}));
  EXPECT_EQ(tokenizer->decode(Ids{1, 280, 2}), "<s>abc</s>");
  EXPECT_EQ(tokenizer->decode(Ids{1, 280, 2}, true), "abc");
  EXPECT_EQ(tokenizer->token_to_id("[INST]"), 3);
  EXPECT_EQ(tokenizer->id_to_token(21), "<SPECIAL_21>");
  EXPECT_EQ(tokenizer->id_to_token(22 + 0xC3), "\uFFFD");
}

// A part longer than 64 bytes is merged by another function than a short one.
TEST(Tekken, LongPartsAreMergedAsShortOnes) {
  const auto tokenizer = parse_tekken(file(), "load: t");
  std::mt19937 source(1);
  for (int i = 0; i < 300; ++i) {
    std::string part;
    for (int k = 0; k < 60; ++k) part += "abcd"[source() % 4];
    // d is in no token of several bytes: parts on either side of it know nothing of each other.
    auto expected = tokenizer->encode(part, {false, false});
    const auto again = expected;
    expected.push_back('d' + 22);
    expected.insert(expected.end(), again.begin(), again.end());
    EXPECT_EQ(tokenizer->encode(part + "d" + part, {false, false}), expected);
  }
}

TEST(Tekken, AVeryLongPartTakesNoVeryLongTime) {
  const auto tokenizer = parse_tekken(file(), "load: t");
  const std::string part(1 << 20, 'a');
  EXPECT_EQ(tokenizer->encode(part, {false, false}), Ids(part.size(), 97 + 22));
  std::string other;
  while (other.size() < 1 << 20) other += "abc";
  EXPECT_EQ(tokenizer->encode(other, {false, false}), Ids(other.size() / 3, 258 + 22));
}

TEST(Tekken, SpecialTokensAreTheFilesWhereItListsThem) {
  const auto listed = R"(, "special_tokens": [{"rank": 0, "token_str": "<s>", "is_control": true},
      {"rank": 1, "token_str": "[NEW]", "is_control": true}], "image": {"image_patch_size": 16})";
  const auto tokenizer = parse_tekken(file(kConfig, vocabulary(), listed), "load: t");
  EXPECT_EQ(tokenizer->bos_token_id(), 0);
  EXPECT_EQ(tokenizer->eos_token_id(), std::nullopt);
  EXPECT_EQ(tokenizer->encode("[NEW]ab"), (Ids{0, 1, 278}));
  EXPECT_EQ(tokenizer->id_to_token(2), "<SPECIAL_2>");
}

TEST(Tekken, AVocabularyIsCutToTheSizeOfTheModel) {
  const auto tokenizer = parse_tekken(
      file(replaced(kConfig, "\"default_vocab_size\": 281", "\"default_vocab_size\": 280")),
      "load: t");
  EXPECT_EQ(tokenizer->vocab_size(), 280);
  EXPECT_EQ(tokenizer->encode("abc", {false, false}), (Ids{278, 99 + 22}));
}

struct Bad {
  std::string text;
  const char* message;
};

TEST(Tekken, AWrongFileIsRefused) {
  const auto with = [](const char* from, const char* to) {
    return file(replaced(kConfig, from, to));
  };
  const auto special = [](const std::string& list) {
    return file(kConfig, vocabulary(), ", \"special_tokens\": " + list);
  };
  const Bad cases[] = {
      {"", ""},
      {"[]", "must be an object with the object config"},
      {"{}", "config must have pattern, version"},
      {"3", "must be an object with the object config"},
      {file("[]"), "got another value in config"},
      {file("3"), "got another value in config"},
      {file(kConfig, "{}"), "got another value in vocab"},
      {file(kConfig, "[[]]"), "got another value in vocab"},
      {file(kConfig, "[3]"), "got another value in vocab"},
      {file(kConfig, "[]"), "default_vocab_size must be from 22 to 22"},
      {file(kConfig, vocabulary(), ", \"config\": {}"), "config must be given once"},
      {file(kConfig, vocabulary("{}")), "vocab: entry 258 must have that rank, and token_bytes"},
      {file(kConfig, vocabulary(entry(259, "abc"))), "vocab: entry 258 must have that rank"},
      {file(kConfig, vocabulary(entry(258, "ab"))),
       "tokens must differ, got ab at the ranks 256 and"},
      {file(kConfig, vocabulary(entry(258, ""))), "the token of rank 258 must have bytes"},
      {file(kConfig, vocabulary(R"({"rank": 258, "token_bytes": "a"})")), "must be base64, got a"},
      {file(kConfig, vocabulary(R"({"rank": 258, "token_bytes": "a==="})")), "must be base64"},
      {file(kConfig, vocabulary(R"({"rank": 258, "token_bytes": "YQ=a"})")), "must be base64"},
      {file(kConfig, vocabulary(R"({"rank": 258, "token_bytes": 3})")), "must be a text"},
      {file(kConfig, vocabulary(R"({"rank": "258", "token_bytes": "YWE="})")),
       "must be an integer"},
      {replaced(file(), "\"AQ==\"", "\"Ag==\""), "the token of rank 1 must be the byte"},
      {with("281", "21"), "default_vocab_size must be from 22 to 281, with all of vocab, got 21"},
      {with("281", "282"), "default_vocab_size must be from 22 to 281, with all of vocab, got 282"},
      {with("281", "-9223372036854775808"), "default_vocab_size must be"},
      {with("281", "9223372036854775807"), "default_vocab_size must be"},
      {with("281", "1e9"), "must be an integer"},
      {with("281", "200"), "vocab must have the 256 bytes"},
      {with("tokens\": 22", "tokens\": 19"), "must be from 20, the special tokens that have names"},
      {with("tokens\": 22", "tokens\": 1000000000000"),
       "default_num_special_tokens must be from 20"},
      {with("\"v3\"", "\"v11\""), "special_tokens must be there from version v11 on"},
      {with("\"v3\"", "3"), "must be a text"},
      {with("\\\\s+|\\\\w+", "("), "pattern"},
      {with("\\\\s+|\\\\w+", "(a)\\\\1"), "pattern"},
      {special("{}"), "got another value in special_tokens"},
      {special("[{\"rank\": 1, \"token_str\": \"a\"}]"),
       "special_tokens: entry 0 must have that rank"},
      {special(R"([{"rank": 0, "token_str": "a"}, {"rank": 1, "token_str": "a"}])"), "got a twice"},
      {special(R"([{"rank": 0, "token_str": "<SPECIAL_3>"}])"), "got <SPECIAL_3> twice"},
      {special(R"([{"rank": 0, "token_str": ""}])"), "must have names that differ"},
  };
  for (const auto& bad : cases) {
    const auto got = ops::error_message([&] { parse_tekken(bad.text, "load: t"); });
    EXPECT_TRUE(got.starts_with("load: t")) << got;
    EXPECT_NE(got.find(bad.message), std::string::npos) << got << "\nnot: " << bad.message;
  }
}

TEST(Tekken, AFileCutAnywhereIsRefused) {
  const auto text = file();
  for (size_t size = 0; size + 1 < text.size(); size += size < 300 ? 1 : 37) {
    EXPECT_TRUE(ops::error_message([&] {
                  parse_tekken(std::string_view(text).substr(0, size), "load: t");
                }).starts_with("load: t"));
  }
}

TEST(Tekken, AFileIsNamedInTheMessage) {
  const io::TemporaryFolder folder;
  EXPECT_EQ(load_tekken(folder.write("tekken.json", file()))->vocab_size(), 281);
  const auto bad = folder.write("bad.json", "{");
  EXPECT_NE(ops::error_message([&] { load_tekken(bad); }).find("bad.json"), std::string::npos);
}

}  // namespace
}  // namespace mistral_ext::tokenizers
