#include "mistral_ext/tokenizers/regex.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {
namespace {

using std::string_literals::operator""s;

constexpr auto kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr auto kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string> matches(const std::string& pattern,
                                 std::string_view text,
                                 RegexSyntax syntax = RegexSyntax::kOniguruma) {
  std::vector<std::string> found;
  for (const auto& span : Regex(pattern, syntax, "test").find_all(text)) {
    found.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, SplitsAsTokenizersDo) {
  EXPECT_EQ(matches(kGpt2, "I'll pay  12,50 EUR \n"),
            (Strings{"I", "'ll", " pay", " ", " 12", ",", "50", " EUR", " \n"}));
  EXPECT_EQ(matches(kTekken, "HTTPServer 42\r\n\tÀÉz"),
            (Strings{"HTTPServer", " ", "4", "2", "\r\n", "\tÀÉz"}));
}

TEST(Regex, SpaceIsUnicodesWhiteSpace) {
  EXPECT_EQ(matches(R"(\s)", "a\u0085b\u00a0c\u3000d\u2028e\u180ef\u200bg\ufeff").size(), 4);
  EXPECT_EQ(matches(R"([^\s]+)", "a\u00a0b\u180ec"), (Strings{"a", "b\u180ec"}));
  EXPECT_EQ(matches(R"([\S]+)", "a\u00a0b\u180ec"), (Strings{"a", "b\u180ec"}));
}

TEST(Regex, WordsAreUnicodesAndDependOnWhosePatternItIs) {
  EXPECT_EQ(matches(R"(\w+)", "क्षि_7 \u24d0"), (Strings{"क्षि_7", "\u24d0"}));
  EXPECT_EQ(matches(R"(\w+)", "a\u200db"), (Strings{"a", "b"}));
  EXPECT_EQ(matches(R"(\w+)", "a\u200db", RegexSyntax::kRust), (Strings{"a\u200db"}));
  EXPECT_EQ(matches(R"(\bb\w*)", "ab b bc"), (Strings{"b", "bc"}));
}

TEST(Regex, OnigurumaHasFractionsOfLatin1AmongWordsButNotInSets) {
  EXPECT_EQ(matches(R"(\w+)", "a½b² \u2153"), (Strings{"a½b²"}));
  EXPECT_EQ(matches(R"(\W)", "½-"), (Strings{"-"}));
  EXPECT_EQ(matches(R"(\b.)", "a½b -"), (Strings{"a", " "}));
  EXPECT_EQ(matches(R"([\w]+)", "a½b"), (Strings{"a", "b"}));
  EXPECT_EQ(matches(R"(\w+)", "a½b", RegexSyntax::kRust), (Strings{"a", "b"}));
}

TEST(Regex, OnigurumaFoldsNoCaseOfAPropertyOutsideSets) {
  EXPECT_EQ(matches(R"((?i)\p{Lu}b)", "ab Ab AB"), (Strings{"Ab", "AB"}));
  EXPECT_EQ(matches(R"((?i)\p{Ll}+)", "aBc"), (Strings{"a", "c"}));
  EXPECT_EQ(matches(R"((?i)[^\p{Lu}]+)", "aB1"), (Strings{"1"}));
}

TEST(Regex, CaseIsFoldedAsUnicodeDoes) {
  EXPECT_EQ(matches("(?i:'s|'ll)", "'S 'lL '\u017f"), (Strings{"'S", "'lL", "'\u017f"}));
  EXPECT_EQ(matches("(?i)k|[x]", "kK\u212aX"), (Strings{"k", "K", "\u212a", "X"}));
}

TEST(Regex, CaseThatFoldsToSeveralCharactersIsRefused) {
  for (const auto* pattern :
       {"(?i)ss",           "(?i:a|xst)",       "(?i)a\u00dfb",   "(?i)[\u00df]", "(?i)[a-\u00ff]+",
        "(?i)[\\w]",        "(?i)[\\p{Lu}]+",   "(?i)\u0130",     "(?i)i\u0307",  "(?i)\ufb01",
        "(?i)f\\x69",       "(?i)\\u{df}",      "(?i)s(?:s)",     "(?i)(?:ss)+",  "(?i)(?:s)(?:s)a",
        "(?i)s{1}s",        "(?i)s(?:s(x))",    "(?i)(?:(?:s))s", "(?i)x?ffi",    "(?i)(ss)",
        "(?i)\u017f\u017f", "(?i)\u0397\u0345", "(?i)(?!ss)a"}) {
    try {
      const Regex regex(pattern, RegexSyntax::kOniguruma, "the field");
      ADD_FAILURE() << pattern;
    } catch (const c10::ValueError& error) {
      const std::string message = error.what_without_backtrace();
      EXPECT_TRUE(message.starts_with("the field: must be")) << message;
      EXPECT_NE(message.find("under (?i)"), std::string::npos) << message;
    }
    // Rust's folds characters one by one.
    EXPECT_NO_THROW(Regex(pattern, RegexSyntax::kRust, "test")) << pattern;
  }
}

TEST(Regex, CaseIsFoldedWhereNothingLongCanBeMeant) {
  for (const auto* pattern : {"ss|\u00df[\u00df]",
                              "(?i:s)s",
                              "(?i:s)(?i:s)",
                              "(?i)ss?",
                              "(?i)s{2}",
                              "(?i)s+s",
                              "(?i)(s)s",
                              "(?i)s(?:s|t)",
                              "(?i)(?:a|s)s",
                              "(?i)s|s",
                              "(?i)s(?=s)",
                              "(?i)[s]s",
                              "(?i)s[s]",
                              "(?i)[^\u00df]",
                              "(?i)s\\bs",
                              "(?i)s.s",
                              "(?i)f(?:)i",
                              "(?i)(?:s(x)s)s",
                              "(?i)(?:a(?:s))s",
                              "(?i)(?:(?:a)(?:s))s",
                              "(?i)(?:(?=s)s)s",
                              "(?i)(?:a?s)s",
                              "(?i)(?-i:ss)",
                              "(?i)f\\p{L}i",
                              "(?i)\\w+",
                              "(?i)[a-z0-9]+",
                              "(?i:'s|'t|'re|'ve|'m|'ll|'d)"}) {
    EXPECT_NO_THROW(Regex(pattern, RegexSyntax::kOniguruma, "test")) << pattern;
  }
  EXPECT_EQ(matches("(?i)s(?:s|t)|s", "\u00dfsS"), (Strings{"sS"}));
}

TEST(Regex, PropertiesAreCategoriesScriptsAndTheirNegations) {
  EXPECT_EQ(matches(R"(\p{Han}+|\p{^L}|\PL|\pN)", "漢字\u30fc1a"), (Strings{"漢字", "1"}));
}

TEST(Regex, LinesEndAtNewlinesAlone) {
  EXPECT_EQ(matches("^.", "a\rb\nc"), (Strings{"a", "c"}));
  EXPECT_EQ(matches("^.", "a\nc", RegexSyntax::kRust), (Strings{"a"}));
  EXPECT_EQ(matches(".$", "a\nc\n", RegexSyntax::kRust), Strings{});
}

TEST(Regex, EmptyMatchesMoveOnByACharacter) {
  EXPECT_EQ(matches("é?", "éxé").size(), 2);
  const auto spans = Regex("x*", RegexSyntax::kOniguruma, "test").find_all("éx");
  EXPECT_EQ(spans, (std::vector<TextSpan>{{0, 0}, {2, 3}}));
  EXPECT_EQ(matches("x*", ""), Strings{""});
  EXPECT_EQ(matches("x", std::string_view()), Strings{});
}

TEST(Regex, LooksBehindTheMatchBefore) { EXPECT_EQ(matches("(?<=a)b|a", "ab b").size(), 2); }

TEST(Regex, NulIsACharacter) { EXPECT_EQ(matches("a.b", "a\0b"s), (Strings{"a\0b"s})); }

TEST(Regex, PatternsReadDifferentlyElsewhereAreRefused) {
  for (const auto* pattern : {"(",
                              "[a",
                              "a\\",
                              "(a)\\1",
                              "(?<n>a)",
                              "(*UTF)a",
                              "[a[b]]",
                              "[a&&b]",
                              "\\h",
                              "\\K",
                              "\\X",
                              "\\G",
                              "a(?i)b",
                              "(?R)",
                              "(?(1)a)",
                              "\\p{Nope}",
                              "\\p{L",
                              "\\p{}",
                              "\\pé",
                              "\\x{110000}",
                              "\\xC3",
                              "\\x",
                              "\\u12",
                              "a{2}+",
                              "a{2}?",
                              "[\\W]",
                              "(?C1)",
                              "\xff",
                              "\\\xff",
                              "a{70000}",
                              "(?:(?:(?:a{1000}){1000}){1000}){1000}"}) {
    EXPECT_THROW(Regex(pattern, RegexSyntax::kOniguruma, "test"), c10::ValueError) << pattern;
  }
  EXPECT_THROW(Regex(std::string(20000, 'a'), RegexSyntax::kRust, "test"), c10::ValueError);
  EXPECT_THROW(Regex(std::string(1000, '(') + std::string(1000, ')'), RegexSyntax::kRust, "test"),
               c10::ValueError);
}

TEST(Regex, BracesThatCountNothingAreThemselves) {
  EXPECT_EQ(matches("a{x}|[{}]|}", "a{x}{}"), (Strings{"a{x}", "{", "}"}));
  EXPECT_EQ(matches("a{,2}b", "aaab"), (Strings{"aab"}));
  EXPECT_EQ(matches(R"(\p{N}{1,3}+)", "12345", RegexSyntax::kRust), (Strings{"123", "45"}));
}

TEST(Regex, LongRunsTakeWorkThatGrowsWithThem) {
  for (const auto* pattern : {kGpt2, kTekken}) {
    for (const std::string run : {"A", "a", " ", "\n", "漢", "!", "\u0301"}) {
      std::string text;
      while (text.size() < 1'000'000) text += run;
      size_t end = 0;
      for (const auto& span :
           Regex(pattern, RegexSyntax::kOniguruma, "test").find_all(text + "x1")) {
        ASSERT_EQ(span.begin, end);
        end = span.end;
      }
      EXPECT_EQ(end, text.size() + 2);
    }
  }
  EXPECT_EQ(matches("(?:ab|c)*", std::string(100'000, 'c')).size(), 1);
}

TEST(Regex, WorkBeyondThatIsAnError) {
  const auto text = std::string(100'000, 'a') + "!";
  for (const auto* pattern : {"(?:a+)+b|a", "a*a*b|a", "(?:a|a)*!!", "[ab]*[ac]*[ad]*x"}) {
    EXPECT_THROW(Regex(pattern, RegexSyntax::kOniguruma, "test").find_all(text + "bx"),
                 c10::ValueError)
        << pattern;
  }
}

TEST(Regex, TextThatIsNoUtf8IsRefusedWithItsByte) {
  const Regex regex("a", RegexSyntax::kOniguruma, "test");
  for (const auto& text : {"xyz\xff"s, "xyz\xed\xa0\x80"s, "xyz\xc0\x80"s, "xyz\xe2\x82"s}) {
    try {
      regex.find_all(text);
      ADD_FAILURE() << "no error";
    } catch (const c10::ValueError& error) {
      EXPECT_NE(std::string(error.what()).find("at byte 3"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace mistral_ext::tokenizers
