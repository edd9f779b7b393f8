// One tokenizer, one regular expression, used by several threads: each gets what it gets alone. Run
// under ThreadSanitizer too.

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "at_once.h"
#include "io/temporary_folder.h"
#include "mistral_ext/tokenizers/instruction_template.h"
#include "mistral_ext/tokenizers/load_tokenizer.h"
#include "mistral_ext/tokenizers/regex.h"
#include "tokenizers/model_bytes.h"
#include "tokenizers/tekken_file.h"

namespace mistral_ext::tokenizers {
namespace {

using Ids = std::vector<int64_t>;

// A part of each kind: an added token, a normalizer, two pre-tokenizers, a decoder.
constexpr auto kTokenizerJson = R"({
  "added_tokens": [{"id": 6, "content": "<s>", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}],
  "normalizer": {"type": "Replace", "pattern": {"Regex": "c+"}, "content": "a"},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "\\s+|\\w+"}, "behavior": "Isolated", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "unk_token": "?", "merges": ["a b", "ab ab"],
            "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "abab": 4, "Ġ": 5}}})";

// Short and long words, special tokens, characters that are no token. Another text for each thread.
std::string text_of(int thread) {
  std::string text = std::string(70, "abc"[thread % 3]);
  for (int i = 0; i < 200; ++i) {
    text += std::string(i % 7, "ab"[(i + thread) % 2]) + (i % 11 == 0 ? "<s> " : " ab\u00e9");
  }
  return text;
}

struct Found {
  Ids ids;
  std::string decoded;
  std::string streamed;
  Ids conversation;

  bool operator==(const Found&) const = default;
};

Found use(const Tokenizer& tokenizer, int thread, bool with_conversation) {
  Found found;
  for (int i = 0; i < 5; ++i) {
    found.ids = tokenizer.encode(text_of(thread));
    found.decoded = tokenizer.decode(found.ids, thread % 2 == 0);
    const auto stream = tokenizer.text_stream(thread % 2 == 0);
    found.streamed.clear();
    for (const auto id : found.ids) found.streamed += stream->put(id);
    found.streamed += stream->finish();
    EXPECT_EQ(found.streamed, found.decoded);
    if (!with_conversation) continue;
    const std::vector<Message> messages = {{Message::Role::kUser, text_of(thread)}};
    found.conversation = encode_conversation(tokenizer, InstructionVersion::kV1, messages);
  }
  return found;
}

struct File {
  const char* name;
  std::string content;
  bool has_control_tokens;  // of Mistral's, which a conversation needs
};

std::vector<File> one_of_each_kind() {
  return {{"tokenizer.json", kTokenizerJson, false},
          {"tokenizer.model", small_model(), true},
          {"tekken.json", tekken::file(), true}};
}

TEST(Threads, OneTokenizerOfEachKindServesSeveral) {
  for (const auto& file : one_of_each_kind()) {
    SCOPED_TRACE(file.name);
    const io::TemporaryFolder folder;
    folder.write(file.name, file.content);
    const auto shared = load_tokenizer(folder.path());
    const auto found =
        run_at_once([&](int thread) { return use(*shared, thread, file.has_control_tokens); });
    // Another one, so that nothing was made ready before the threads began.
    const auto alone = load_tokenizer(folder.path());
    EXPECT_EQ(found, run_in_turn([&](int thread) {
                return use(*alone, thread, file.has_control_tokens);
              }));
    EXPECT_FALSE(found[0].ids.empty());
  }
}

TEST(Threads, EachMayLoadTheSameFile) {
  for (const auto& file : one_of_each_kind()) {
    SCOPED_TRACE(file.name);
    const io::TemporaryFolder folder;
    folder.write(file.name, file.content);
    const auto load_and_use = [&](int thread) {
      return use(*load_tokenizer(folder.path()), thread, file.has_control_tokens);
    };
    EXPECT_EQ(run_at_once(load_and_use), run_in_turn(load_and_use));
  }
}

TEST(Threads, OneRegexSearchesSeveralTextsAtOnce) {
  const Regex regex(R"('s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                    RegexSyntax::kOniguruma,
                    "test");
  const auto search = [&](int thread) {
    std::string text;
    for (int i = 0; i < 2000; ++i) text += " word" + std::to_string(i + thread) + ",\n";
    return regex.find_all(text);
  };
  const auto found = run_at_once(search);
  EXPECT_EQ(found, run_in_turn(search));
  EXPECT_EQ(found[0].size(), 4 * 2000);
}

TEST(Threads, EachMayCompileTheSameRegex) {
  const auto search = [](int thread) {
    return Regex(R"(\w+|\s)", RegexSyntax::kOniguruma, "test").find_all(text_of(thread));
  };
  EXPECT_EQ(run_at_once(search), run_in_turn(search));
}

}  // namespace
}  // namespace mistral_ext::tokenizers
