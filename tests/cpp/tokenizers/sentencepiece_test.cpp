#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "io/temporary_folder.h"
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "ops/error_message.h"
#include "tokenizers/model_bytes.h"

namespace mistral_ext::tokenizers {
namespace {

using Ids = std::vector<int64_t>;

std::string message(const std::string& bytes) {
  return ops::error_message([&] { parse_sentencepiece(bytes, "load: m"); });
}

TEST(SentencePiece, MergesByScoreAndFallsBackToBytes) {
  const auto tokenizer = parse_sentencepiece(small_model(), "load: m");
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{1, 263}));
  EXPECT_EQ(tokenizer->encode("ba", {false, true}), (Ids{259, 261, 260}));
  // é is no piece: its two bytes.
  EXPECT_EQ(tokenizer->encode("\u00e9", {false, true}), (Ids{259, 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(tokenizer->encode("", {false, false}), Ids());
  EXPECT_EQ(tokenizer->decode(Ids{1, 263, 259, 3 + 0xC3, 3 + 0xA9, 2}, true), "ab \u00e9");
  EXPECT_EQ(tokenizer->decode(Ids{1, 263, 2}), "<s>ab</s>");
  EXPECT_EQ(tokenizer->decode(Ids{3 + 0xC3, 3 + 0xC3, 3 + 0xA9}), "\uFFFD\u00e9");
}

TEST(SentencePiece, FindsSpecialTokensOnlyWhereAsked) {
  const auto tokenizer = parse_sentencepiece(small_model(), "load: m");
  EXPECT_EQ(tokenizer->encode("ab</s>ab"), (Ids{1, 263, 2, 263}));
  for (const auto id : tokenizer->encode("ab</s>ab", {false, false})) {
    EXPECT_FALSE(tokenizer->is_special(id));
  }
  EXPECT_EQ(tokenizer->decode(Ids{263, 2, 263}), "ab</s>ab");
}

TEST(SentencePiece, AFileIsNamedInTheMessage) {
  const io::TemporaryFolder folder;
  const auto good = folder.write("good.model", small_model());
  EXPECT_EQ(load_sentencepiece(good)->vocab_size(), 264);
  const auto bad = folder.write("bad.model", "no model");
  EXPECT_NE(ops::error_message([&] { load_sentencepiece(bad); }).find("bad.model"),
            std::string::npos);
  EXPECT_NE(ops::error_message([&] { load_sentencepiece(folder.path() / "none"); }).find("none"),
            std::string::npos);
}

struct Bad {
  std::string bytes;
  const char* message;
};

TEST(SentencePiece, AModelThatIsNoneOfMistralsIsRefused) {
  const auto long_piece = std::string(1025, 'x');
  const Bad cases[] = {
      {"", "model_type must be BPE (2), got 1"},
      {"{}", "must be a protobuf message of 2 bytes, got one that breaks off"},
      {std::string(11, '\xFF'), "must be a protobuf message of 11 bytes"},
      {trainer() + normalizer(), "must have pieces, got none"},
      {small_model() + text(1, std::string("\x0A\x7F", 2)), "must be a SentencePiece model"},
      {text(1, "\xFF\xFF"), "must be a SentencePiece model"},
      {specials() + piece("a") + trainer(1) + normalizer(), "model_type must be BPE (2), got 1"},
      {specials() + piece("a") + normalizer(), "model_type must be BPE (2), got 1"},
      {specials() + piece("a") + trainer(4) + normalizer(), "model_type must be BPE (2), got 4"},
      {small_model(piece("a")), "piece 264 must be there once, got a twice"},
      {small_model(piece("<s>")), "piece 264 must be there once, got <s> twice"},
      {small_model(piece("<0x41>")), "piece 264 must be there once"},
      {small_model(piece("")), "piece 264 must have 1 to 1024 bytes, got 0"},
      {small_model(piece(long_piece)), "piece 264 must have 1 to 1024 bytes, got 1025"},
      {small_model(piece(std::string(65, 'x'), kUserDefined)),
       "user-defined, must have at most 64"},
      {small_model(piece("\xC3")), "piece 264 must be UTF-8 without zero bytes, got \\xC3"},
      {small_model(piece(std::string("x\0y", 3))), "piece 264 must be UTF-8 without zero bytes"},
      {small_model(piece("x", kUnused)), "piece 264 must be of type normal"},
      {small_model(piece("x", kUnknown)), "must be a model that SentencePiece loads"},
      {small_model(piece("x", kByte)), "must be a model that SentencePiece loads"},
      {small_model(piece("x", kNormal, std::numeric_limits<float>::quiet_NaN())),
       "the score of piece 264 must be finite, got nan"},
      {small_model(piece("x", kNormal, std::numeric_limits<float>::infinity())),
       "the score of piece 264 must be finite, got inf"},
      {piece("a") + trainer(kBpe, false) + normalizer(), "must have a piece of type unknown"},
      {specials() + piece("<0x41>", kByte) + trainer() + normalizer(), "SentencePiece loads"},
      {specials() + piece("<0x41>", kByte) + trainer(kBpe, false) + normalizer(),
       "SentencePiece loads"},
      {specials() + piece("a") + trainer(kBpe, true) + normalizer(), "SentencePiece loads"},
      {small_model() + normalizer(text(2, std::string(2000, '\xFF'))),
       "normalizer_spec must be identity, got a table"},
      {small_model() + text(5, text(2, std::string(64, 'x'))), "must be identity, got a table"},
      {small_model() + text(2, text(44, "\xFF")), "unk_surface must be UTF-8, got \\xFF"},
      {small_model() + text(9, std::string((1 << 20) + 1, 'x')), "at most 1048576 bytes beside"},
      {small_model() + varint(9 << 3 | 3), "must be a protobuf message of"},
  };
  for (const auto& bad : cases) {
    const auto got = message(bad.bytes);
    EXPECT_TRUE(got.starts_with("load: m: ")) << got;
    EXPECT_NE(got.find(bad.message), std::string::npos) << got;
  }
}

TEST(SentencePiece, MorePiecesThanAModelHasAreRefusedBeforeTheyAreMade) {
  std::string bytes;
  for (int i = 0; i <= 1 << 20; ++i) bytes += text(1, "");
  EXPECT_NE(message(bytes).find("must hold at most 1048576 of field 1"), std::string::npos);
}

TEST(SentencePiece, AModelCutAnywhereIsRefusedOrComplete) {
  const auto bytes = small_model(piece("x", kUserDefined));
  for (size_t size = 0; size < bytes.size(); ++size) {
    try {
      parse_sentencepiece(std::string_view(bytes).substr(0, size), "load: m");
    } catch (const c10::ValueError& error) {
      EXPECT_NE(std::string(error.what()).find("load: m: "), std::string::npos);
    }
  }
}

TEST(SentencePiece, AModelWithWrongBytesIsRefusedOrWorks) {
  const auto bytes = small_model(piece("x", kUserDefined));
  std::mt19937 source(5);
  for (int i = 0; i < 3000; ++i) {
    auto changed = bytes;
    for (int k = 0; k <= i % 4; ++k)
      changed[source() % changed.size()] = static_cast<char>(source());
    try {
      const auto tokenizer = parse_sentencepiece(changed, "load: m");
      const auto ids = tokenizer->encode("ab ba x\u00e9</s> ");
      tokenizer->decode(ids);
    } catch (const c10::ValueError&) {
    }
  }
}

}  // namespace
}  // namespace mistral_ext::tokenizers
