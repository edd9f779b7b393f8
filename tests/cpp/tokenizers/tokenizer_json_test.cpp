#include "mistral_ext/tokenizers/tokenizer_json.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "mistral_ext/tokenizers/load_tokenizer.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr auto kModel =
    R"("model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "abab": 4},)"
    R"( "merges": ["a b", "ab ab"]})";
constexpr auto kModelOfPairs =
    R"("model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "abab": 4},)"
    R"( "merges": [["a", "b"], ["ab", "ab"]]})";

std::string file(const std::string& parts, const char* model = kModelOfPairs) {
  return "{" + parts + (parts.empty() ? "" : ", ") + model + "}";
}

std::string added(const std::string& id, const std::string& content) {
  return R"("added_tokens": [{"id": )" + id + R"(, "content": )" + content +
         R"(, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}])";
}

void expect_refused(const std::string& text, const std::string& message) {
  try {
    parse_tokenizer_json(text, "load: file");
    ADD_FAILURE() << "no error for " << text;
  } catch (const c10::ValueError& error) {
    const std::string what = error.what();
    EXPECT_TRUE(what.starts_with("load: file")) << what;
    EXPECT_NE(what.find(message), std::string::npos) << what << "\nfor " << text;
  }
}

using Ids = std::vector<int64_t>;

TEST(TokenizerJson, MergesInTheFilesOrder) {
  for (const auto* model : {kModel, kModelOfPairs}) {
    const auto tokenizer = parse_tokenizer_json(file(added("5", R"("<s>")"), model), "load: file");
    EXPECT_EQ(tokenizer->encode("ababab"), (Ids{4, 3}));
    EXPECT_EQ(tokenizer->encode("a<s>cb"), (Ids{1, 5, 0, 2}));
    EXPECT_EQ(tokenizer->encode("<s>", {.parse_special_tokens = false}), (Ids{0, 0, 0}));
    EXPECT_EQ(tokenizer->encode(""), Ids{});
    EXPECT_EQ(tokenizer->decode(Ids{4, 5, 3}), "abab <s> ab");
    EXPECT_EQ(tokenizer->decode(Ids{4, 5, 3}, true), "abab ab");
    EXPECT_EQ(tokenizer->vocab_size(), 6);
  }
}

TEST(TokenizerJson, AMillionLettersTakeNoLongerThanTheyMust) {
  const auto tokenizer = parse_tokenizer_json(file(""), "load: file");
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += "ab";
  EXPECT_EQ(tokenizer->encode(text), Ids(250'000, 4));
}

TEST(TokenizerJson, IdsMayHaveHoles) {
  const auto tokenizer = parse_tokenizer_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 7}, "merges": []}})", "load: file");
  EXPECT_EQ(tokenizer->vocab_size(), 8);
  EXPECT_EQ(tokenizer->decode(Ids{0, 3, 7}), "a b");
  EXPECT_THROW(tokenizer->id_to_token(3), c10::ValueError);
  EXPECT_EQ(tokenizer->decode(Ids{0, 8, 7}), "a b");
  EXPECT_THROW(tokenizer->decode(Ids{-1}), c10::ValueError);
}

TEST(TokenizerJson, EachFieldIsCheckedAndNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "JSON in UTF-8"},
      {"[]", "must hold a JSON object, got a list"},
      {"1", "must hold a JSON object"},
      {"{}", "model: must be given"},
      {file(R"("version": "2.0")"), "version must be 1.0, got 2.0"},
      {file(R"("version": 1)"), "version"},
      {file(R"("a": 1, "a": 2)"), "a must be given once"},
      {R"({"model": 1})", "model"},
      {R"({"model": {}})", "model.vocab: must be given"},
      {R"({"model": {"vocab": []}})", "model.vocab must be a mapping"},
      {R"({"model": {"vocab": 1}})", "model.vocab must be a mapping"},
      {R"({"model": {"vocab": {"a": "b"}}})", "model.vocab must hold whole numbers"},
      {R"({"model": {"vocab": {"a": 1.5}}})", "model.vocab must hold whole numbers"},
      {R"({"model": {"vocab": {"a": []}}})", "model.vocab must hold whole numbers"},
      {R"({"model": {"vocab": {"a": {}}}})", "model.vocab must hold whole numbers"},
      {R"({"model": {"vocab": {"a": -1}}})", "must be in [0, 1073741824), got -1"},
      {R"({"model": {"vocab": {"a": 4294967296}}})", "must be in [0, 1073741824), got 4294967296"},
      {R"({"model": {"vocab": {"a": 0, "a": 1}}})", "tokens must differ, got \"a\" twice"},
      {R"({"model": {"vocab": {}, "vocab": {}}})", "model.vocab must be given once"},
      {R"({"model": {"vocab": {"a": 0}}})", "model.merges: must be given"},
      {R"({"model": {"vocab": {"a": 0, "b": 0}, "merges": []}})", "ids must differ, got 0"},
      {R"({"model": {"vocab": {"a": 9999999}, "merges": []}})", "must be below 4100, got 9999999"},
      {R"({"model": {"merges": {}}})", "model.merges must be a list"},
      {R"({"model": {"merges": "a b"}})", "model.merges must be a list"},
      {R"({"model": {"merges": [1]}})", "model.merges must hold strings or pairs"},
      {R"({"model": {"merges": [{}]}})", "model.merges must hold strings or pairs"},
      {R"({"model": {"merges": [["a", ["b"]]]}})", "model.merges must hold strings or pairs"},
      {R"({"model": {"merges": [["a"]]}})", "model.merges[0] must be two tokens"},
      {R"({"model": {"merges": [["a", "b"], ["a", "b", "c"]]}})", "model.merges[1] must be two"},
      {R"({"model": {"merges": ["ab"]}})", "model.merges[0] must be two tokens"},
      {R"({"model": {"merges": ["a b c"]}})", "model.merges[0] must be two tokens"},
      {R"({"model": {"vocab": {"a": 0}, "merges": ["a b"]}})", "of tokens in vocab, got \"b\""},
      {R"({"model": {"vocab": {"a": 0, "b": 1}, "merges": ["a b"]}})", "vocab, got \"ab\""},
      {R"({"model": {"type": "Unigram", "vocab": {}, "merges": []}})", "type must be BPE"},
      {R"({"model": {"dropout": 0.1, "vocab": {}, "merges": []}})", "dropout must be 0 or null"},
      {R"({"model": {"unk_token": "x", "vocab": {}, "merges": []}})", "unk_token must be in vocab"},
      {R"({"model": {"continuing_subword_prefix": "#", "vocab": {"a": 0, "b": 1, "ab": 2},)"
       R"( "merges": ["a b"]}})",
       "continuing_subword_prefix"},
      {file(R"("added_tokens": {})"), "added_tokens"},
      {file(R"("added_tokens": [1])"), "added_tokens[0]: must be a mapping"},
      {file(R"("added_tokens": [{"id": 1}])"), "added_tokens[0]: id and content must be given"},
      {file(R"("added_tokens": [{"id": 1, "content": "a"}])"), "single_word must be given"},
      {file(added("2", R"("a")")), "id must be that of \"a\" in model.vocab, 1, got 2"},
      {file(added("7", R"("x")")), "id must be the next one, 5"},
      {file(added("5", R"("")")), "content must have 1 to 1024 bytes, got 0"},
      {file(R"("normalizer": [])"), "normalizer"},
      {file(R"("normalizer": {})"), "normalizer: type must be given"},
      {file(R"("normalizer": {"type": "NFKC"})"), "normalizer: type must be one that is read"},
      {file(R"("normalizer": {"type": "Sequence"})"), "normalizer: normalizers must be given"},
      {file(R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip"}]})"),
       "normalizer.normalizers[0]: strip_left and strip_right must be given"},
      {file(R"("normalizer": {"type": "Prepend"})"), "normalizer: prepend must be given"},
      {file(R"("normalizer": {"type": "Replace", "content": "", "pattern": {}})"),
       "pattern must be one String or one Regex"},
      {file(R"("normalizer": {"type": "Replace", "content": "", "pattern": {"String": ""}})"),
       "pattern.String must have 1 to 1024 bytes"},
      {file(R"("normalizer": {"type": "Replace", "content": "", "pattern": {"Regex": "("}})"),
       "pattern.Regex: must be a regular expression"},
      {file(R"("pre_tokenizer": {"type": "Split", "pattern": {"String": " "}})"),
       "behavior must be"},
      {file(R"("pre_tokenizer": {"type": "Metaspace", "replacement": "ab"})"),
       "replacement must be one character"},
      {file(R"("pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "x"})"),
       "prepend_scheme must be first"},
      {file(R"("decoder": {"type": "Strip", "content": "a", "start": -1, "stop": 0})"),
       "start must be a count, got -1"},
      {file(R"("decoder": {"type": "CTC"})"),
       "decoder: type must be one that is read here, got CTC"},
      {file(R"("post_processor": {"type": "TemplateProcessing"})"), "single and special_tokens"},
      {file(
           R"("post_processor": {"type": "TemplateProcessing", "single": [], "special_tokens": {}})"),
       "Sequence A once, got none"},
      {file(R"("post_processor": {"type": "TemplateProcessing", "special_tokens": {}, "single":)"
            R"( [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}]})"),
       "special_tokens must have x"},
      {file(R"("post_processor": {"type": "TemplateProcessing", "special_tokens": {"x": {"ids":)"
            R"( [9]}}, "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}]})"),
       "post_processor: ids must be those of tokens, got 9"},
  };
  for (const auto& [text, message] : cases) expect_refused(text, message);
}

TEST(TokenizerJson, TextThatEndsTooEarlyIsRefusedWhereverItDoes) {
  const auto whole = file(added("5", R"("<s>")") + R"(, "decoder": {"type": "Fuse"})");
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW(parse_tokenizer_json(whole.substr(0, length), "load: file"), c10::ValueError);
  }
}

TEST(TokenizerJson, NestingAndNumbersOfPartsAreBounded) {
  std::string deep = R"({"type": "Fuse"})";
  for (int i = 0; i < 100; ++i) deep = R"({"type": "Sequence", "decoders": [)" + deep + "]}";
  expect_refused(file("\"decoder\": " + deep), "at most 64 levels");
  std::string many = R"({"type": "Sequence", "decoders": [{"type": "Fuse"})";
  for (int i = 0; i < 100; ++i) many += R"(, {"type": "Fuse"})";
  expect_refused(file("\"decoder\": " + many + "]}"), "must be among 64 components");
  std::string values = "\"more\": [0";
  for (int i = 0; i < 250'000; ++i) values += ",0";
  expect_refused(file(values + "]"), "at most 200000 values");
}

TEST(TokenizerJson, SettingsCannotMakeATextMuchLonger) {
  std::string steps = R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  for (int i = 0; i < 40; ++i) {
    steps += R"(, {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  }
  const auto encoder = parse_tokenizer_json(
      file(R"("normalizer": {"type": "Sequence", "normalizers": [)" + steps + "]}"), "load: file");
  EXPECT_THROW(encoder->encode("aaaa"), c10::ValueError);
  for (const std::string fuse : {"", R"({"type": "Fuse"}, )"}) {
    const auto decoder = parse_tokenizer_json(
        file(R"("decoder": {"type": "Sequence", "decoders": [)" + fuse + steps + "]}"),
        "load: file");
    EXPECT_THROW(decoder->decode(Ids{1, 1}), c10::ValueError);
  }
  std::string levels = R"({"type": "ByteLevel"})";
  for (int i = 0; i < 40; ++i) levels += R"(, {"type": "ByteLevel"})";
  const auto bytes = parse_tokenizer_json(
      file(R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [)" + levels + "]}"),
      "load: file");
  EXPECT_THROW(bytes->encode("\xC3\xA9"), c10::ValueError);
}

TEST(LoadTokenizer, AFolderThatIsNotThereIsRefused) {
  EXPECT_THROW(load_tokenizer("/no/such/folder"), c10::ValueError);
}

}  // namespace
}  // namespace mistral_ext::tokenizers
