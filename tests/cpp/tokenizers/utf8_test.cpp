#include "mistral_ext/tokenizers/utf8.h"

#include <gtest/gtest.h>

namespace mistral_ext::tokenizers {
namespace {

std::string joined(std::string_view bytes, CharacterBuffer::Replace replace) {
  CharacterBuffer buffer(replace);
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) buffer.put(bytes.substr(i, 1), text);
  buffer.finish(text);
  return text;
}

TEST(Utf8, TheFirstInvalidByteIsNamed) {
  EXPECT_EQ(first_invalid_utf8(""), 0);
  EXPECT_EQ(first_invalid_utf8("a\u00e9\u20ac\U0001F600"), 10);
  EXPECT_EQ(first_invalid_utf8("ab\x80"), 2);
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0);       // overlong
  EXPECT_EQ(first_invalid_utf8("a\xED\xA0\x80"), 1);  // a surrogate
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0);
  EXPECT_EQ(first_invalid_utf8("\xE2\x82"), 0);
  EXPECT_EQ(first_invalid_utf8(std::string_view("\0x", 2)), 2);
}

TEST(Utf8, CharactersComeOutOfSingleBytes) {
  const std::string text = "a\u00e9\u20ac\U0001F600\uFFFD";
  EXPECT_EQ(joined(text, CharacterBuffer::Replace::kBeginning), text);
  EXPECT_EQ(joined(text, CharacterBuffer::Replace::kByte), text);
}

TEST(Utf8, BytesThatAreNoCharacterAreReplaced) {
  const std::string r = "\uFFFD";
  using Replace = CharacterBuffer::Replace;
  EXPECT_EQ(joined("\xE2\x82z", Replace::kBeginning), r + "z");
  EXPECT_EQ(joined("\xE2\x82z", Replace::kByte), r + r + "z");
  EXPECT_EQ(joined("\xF0\x9F\x98", Replace::kBeginning), r);
  EXPECT_EQ(joined("\xF0\x9F\x98", Replace::kByte), r + r + r);
  // A surrogate's first byte can be followed by none of the others.
  EXPECT_EQ(joined("\xED\xA0\x80", Replace::kBeginning), r + r + r);
  EXPECT_EQ(joined("\xED\xA0\x80", Replace::kByte), r + r + r);
  EXPECT_EQ(joined("\xE2\xE2\x82\xAC", Replace::kByte), r + "\u20ac");
}

}  // namespace
}  // namespace mistral_ext::tokenizers
