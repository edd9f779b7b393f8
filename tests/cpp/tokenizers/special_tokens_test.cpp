#include "mistral_ext/tokenizers/special_tokens.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {
namespace {

using Parts = std::vector<std::string>;  // "text" or "#id"

Parts split(const SpecialTokens& tokens, std::string_view text) {
  Parts parts;
  tokens.split(
      text,
      [&](std::string_view part) { parts.emplace_back(part); },
      [&](int64_t id) { parts.push_back(std::string("#").append(std::to_string(id))); });
  return parts;
}

SpecialTokens special(const std::vector<std::string>& names) {
  SpecialTokens tokens;
  int64_t id = 0;
  for (const auto& name : names) tokens.add(name, id++);
  tokens.seal();
  return tokens;
}

// Every token tried at every place.
Parts split_slowly(const std::vector<std::string>& names, std::string_view text) {
  Parts parts;
  std::string between;
  const auto put = [&] {
    if (!between.empty()) parts.push_back(between);
    between.clear();
  };
  for (size_t at = 0; at < text.size();) {
    size_t longest = 0;
    size_t id = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i].size() <= longest || !text.substr(at).starts_with(names[i])) continue;
      longest = names[i].size();
      id = i;
    }
    if (longest == 0) {
      between += text[at++];
      continue;
    }
    put();
    parts.push_back(std::string("#").append(std::to_string(id)));
    at += longest;
  }
  put();
  return parts;
}

TEST(SpecialTokens, TheFirstPlaceAndThereTheLongestIsTaken) {
  const auto tokens = special({"<s>", "</s>", "[A]", "[A][B]", "s>x"});
  EXPECT_EQ(split(tokens, "a<s>x[A][B[A][B]<</s>"),
            (Parts{"a", "#0", "x", "#2", "[B", "#3", "<", "#1"}));
  EXPECT_EQ(split(tokens, ""), Parts{});
  EXPECT_EQ(split(tokens, "<s"), Parts{"<s"});
  EXPECT_EQ(split(special({}), "<s>"), Parts{"<s>"});
  EXPECT_EQ(split(special({""}), "<s>"), Parts{"<s>"});
}

TEST(SpecialTokens, OfTwoThatAreTheSameTheFirstIsTaken) {
  EXPECT_EQ(split(special({"<s>", "<s>"}), "<s>"), Parts{"#0"});
}

TEST(SpecialTokens, RandomOnesAreFoundAsByTryingEveryOne) {
  const auto text = [](std::mt19937& random, size_t longest, char last) {
    std::string made;
    for (auto length = random() % (longest + 1); length > 0; --length) {
      made += static_cast<char>('a' + random() % static_cast<unsigned>(last - 'a' + 1));
    }
    return made;
  };
  for (unsigned round = 0; round < 3000; ++round) {
    std::mt19937 random(round);
    const char last = static_cast<char>('a' + round % 3);
    std::vector<std::string> names(round % 9);
    for (auto& name : names) name = text(random, 1 + round % 7, last);
    const auto where = text(random, 60, last);
    ASSERT_EQ(split(special(names), where), split_slowly(names, where)) << where;
  }
}

// Each of these is hundreds of billions of steps where every token is tried at every place.
TEST(SpecialTokens, LongOnesAndNearMatchesTakeWorkThatGrowsWithTheText) {
  constexpr size_t kBytes = 1'000'000;
  const std::string run(kBytes, 'a');
  EXPECT_EQ(split(special({run.substr(0, kBytes / 2) + "b"}), run), Parts{run});
  EXPECT_EQ(split(special({std::string("b").append(run, 0, kBytes / 2)}), run), Parts{run});
  EXPECT_EQ(split(special({"a", run.substr(0, kBytes / 2) + "b"}), run), Parts(kBytes, "#0"));
  EXPECT_EQ(split(special({run.substr(0, kBytes / 2), run.substr(0, kBytes / 2 - 1) + "b"}), run),
            Parts(2, "#0"));
  std::vector<std::string> near;
  for (size_t i = 1; i < 1000; ++i) near.push_back(run.substr(0, i) + "b");
  EXPECT_EQ(split(special(near), run), Parts{run});
}

}  // namespace
}  // namespace mistral_ext::tokenizers
