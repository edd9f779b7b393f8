#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"

#include <cstdlib>
#include <unordered_map>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/tokenizers/sentencepiece_model.h"
#include "mistral_ext/tokenizers/special_tokens.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr int64_t kMostBytes = int64_t{64} << 20;
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, a space inside pieces

using Kind = SentencePiece::Kind;

// <0x0A>; the library has checked that it is one.
char byte_of(const std::string& piece) {
  return static_cast<char>(std::strtol(piece.substr(3, 2).c_str(), nullptr, 16));
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  while (true) {
    const auto mark = piece.find(kSpaceMark);
    text += piece.substr(0, mark);
    if (mark == std::string_view::npos) return text;
    text += ' ';
    piece.remove_prefix(mark + kSpaceMark.size());
  }
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view bytes, const std::string& label) : model_(bytes, label) {
    const auto& pieces = model_.pieces();
    ids_.reserve(pieces.size());
    for (size_t id = 0; id < pieces.size(); ++id) {
      ids_.emplace(pieces[id].text, static_cast<int64_t>(id));
      if (pieces[id].kind == Kind::kControl) {
        special_.add(pieces[id].text, static_cast<int64_t>(id));
      }
    }
    special_.seal();
  }

  std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    check_utf8(text, "encode");
    std::vector<int64_t> ids;
    if (options.add_special_tokens && model_.bos()) ids.push_back(*model_.bos());
    const auto encode_text = [&](std::string_view part) { model_.encode(part, ids); };
    if (options.parse_special_tokens) {
      special_.split(text, encode_text, [&](int64_t id) { ids.push_back(id); });
    } else {
      encode_text(text);
    }
    return ids;
  }

  std::unique_ptr<TextStream> text_stream(bool skip_special_tokens) const override;

  int64_t vocab_size() const override { return static_cast<int64_t>(model_.pieces().size()); }
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  std::string id_to_token(int64_t id) const override {
    MISTRAL_EXT_CHECK(id >= 0 && id < vocab_size(),
                      "id_to_token: id must be from 0 to {}, got {}",
                      vocab_size() - 1,
                      id);
    return model_.pieces()[id].text;
  }
  bool is_special(int64_t id) const override {
    return id >= 0 && id < vocab_size() && model_.pieces()[id].kind == Kind::kControl;
  }
  std::optional<int64_t> bos_token_id() const override { return model_.bos(); }
  std::optional<int64_t> eos_token_id() const override { return model_.eos(); }

  const SentencePieceModel& model() const { return model_; }

 private:
  SentencePieceModel model_;
  std::unordered_map<std::string_view, int64_t> ids_;  // views of the model's pieces
  SpecialTokens special_;
};

class SentencePieceStream : public TextStream {
 public:
  SentencePieceStream(const SentencePieceTokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string put(int64_t id) override {
    MISTRAL_EXT_CHECK(id >= 0, "decode: ids must not be negative, got {}", id);
    std::string text;
    if (id >= tokenizer_.vocab_size()) return text;
    const auto& piece = tokenizer_.model().pieces()[id];
    if (piece.kind == Kind::kByte) {
      const char byte = byte_of(piece.text);
      bytes_.put({&byte, 1}, text);
      any_text_ = true;  // whatever becomes of the byte, the next piece finds text before it
      return text;
    }
    bytes_.finish(text);
    if (piece.kind == Kind::kControl) {
      if (!skip_special_tokens_) {
        text += piece.text;
        restart();
      }
      return text;
    }
    // Where this is the space before the text, it counts as text for the pieces after it.
    const bool first = !any_text_;
    std::string_view rest = piece.text;
    if (piece.kind == Kind::kUnknown) {
      rest = tokenizer_.model().unknown_surface();
      text += rest;
    } else {
      const bool drops =
          first && tokenizer_.model().drops_first_space() && rest.starts_with(kSpaceMark);
      if (drops) rest.remove_prefix(kSpaceMark.size());
      if (drops && !tokenizer_.model().drops_leading_spaces()) any_text_ = true;
      text += with_spaces(rest);
    }
    if (!rest.empty()) any_text_ = true;
    return text;
  }

  std::string finish() override {
    std::string text;
    bytes_.finish(text);
    restart();
    return text;
  }

 private:
  void restart() { any_text_ = false; }

  const SentencePieceTokenizer& tokenizer_;
  const bool skip_special_tokens_;
  CharacterBuffer bytes_{CharacterBuffer::Replace::kByte};
  bool any_text_ = false;
};

std::unique_ptr<TextStream> SentencePieceTokenizer::text_stream(bool skip_special_tokens) const {
  return std::make_unique<SentencePieceStream>(*this, skip_special_tokens);
}

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  const io::File opened(file);
  return parse_sentencepiece(opened.read_all(kMostBytes), opened.label());
}

std::unique_ptr<Tokenizer> parse_sentencepiece(std::string_view bytes, const std::string& label) {
  return std::make_unique<SentencePieceTokenizer>(bytes, label);
}

}  // namespace mistral_ext::tokenizers
