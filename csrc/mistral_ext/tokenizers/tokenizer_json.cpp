#include "mistral_ext/tokenizers/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/added_tokens.h"
#include "mistral_ext/tokenizers/bpe_model.h"
#include "mistral_ext/tokenizers/normalizer.h"
#include "mistral_ext/tokenizers/pre_tokenizer.h"
#include "mistral_ext/tokenizers/token_decoder.h"
#include "mistral_ext/tokenizers/tokenizer_json_file.h"
#include "mistral_ext/tokenizers/tokenizer_settings.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr int64_t kMostBytes = int64_t{256} << 20;

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(TokenizerJsonFile file, const std::string& label, const SpecialTokenNames& names)
      : model_(file, label),
        normalizer_(file.fields, label),
        pre_tokenizer_(file.fields, label),
        added_(file.fields, model_.vocabulary(), normalizer_, label),
        decoder_(file.fields, label),
        around_(read_post_processor(file.fields, label)),
        bos_(id_of(names.bos)),
        eos_(id_of(names.eos)) {
    const auto version = ConfigReader(file.fields, label).string("version").value_or("1.0");
    MISTRAL_EXT_CHECK(
        version == "1.0", "{}: version must be 1.0, got {}", label, io::printable(version));
    for (const auto* ids : {&around_.before, &around_.after}) {
      for (const auto id : *ids) {
        MISTRAL_EXT_CHECK(
            text_of(id), "{}: post_processor: ids must be those of tokens, got {}", label, id);
      }
    }
    for (int64_t id = 0; id < vocab_size() && text_only_bytes_; ++id) {
      const auto token = text_of(id);
      if (!token || TokenDecoder::stands_for_bytes(*token)) continue;
      only_bytes_ = false;
      if (!is_skipped(*token)) text_only_bytes_ = false;
    }
  }

  std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    check_utf8(text, "encode");
    std::vector<int64_t> ids;
    ids.reserve(text.size() / 3 + 2);
    if (options.add_special_tokens) ids = around_.before;
    for (const auto& [span, id] : added_.split(text, false, options.parse_special_tokens)) {
      if (id >= 0) {
        ids.push_back(id);
        continue;
      }
      const auto part = text.substr(span.begin, span.end - span.begin);
      TextPieces pieces(part);
      if (span.begin == 0) pieces.start_bytes = first_character(text);
      encode_normalized(std::move(pieces), options, ids);
    }
    if (options.add_special_tokens) {
      ids.insert(ids.end(), around_.after.begin(), around_.after.end());
    }
    return ids;
  }

  std::unique_ptr<TextStream> text_stream(bool skip_special_tokens) const override;

  int64_t vocab_size() const override {
    return std::max(model_.vocabulary().end_id(), added_.end_id());
  }
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    if (const auto* added = added_.find(token)) return added->id;
    const auto id = model_.vocabulary().find(token);
    return id < 0 ? std::nullopt : std::optional<int64_t>(id);
  }
  std::string id_to_token(int64_t id) const override {
    const auto* added = added_.find(id);
    const auto token = added == nullptr ? model_.vocabulary().token(id) : added->content;
    MISTRAL_EXT_CHECK(token, "id_to_token: id must be that of a token, got {}", id);
    return std::string(*token);
  }
  bool is_special(int64_t id) const override {
    const auto* added = added_.find(id);
    return added != nullptr && added->special;
  }
  std::optional<int64_t> bos_token_id() const override { return bos_; }
  std::optional<int64_t> eos_token_id() const override { return eos_; }

  TokenDecoding decoding(bool skip_special_tokens) const {
    return {decoder_, skip_special_tokens ? text_only_bytes_ : only_bytes_};
  }

  // What decoding begins with: a token that is looked for in normalised text is written so.
  std::optional<std::string_view> text_of(int64_t id) const {
    const auto* added = added_.find(id);
    return added == nullptr ? model_.vocabulary().token(id) : added->normalized;
  }
  bool is_skipped(std::string_view token) const { return added_.is_special(token); }

 private:
  static size_t first_character(std::string_view text) {
    size_t end = 1;
    while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
    return end;
  }

  // The files beside this one may name what it does not have.
  std::optional<int64_t> id_of(const SpecialTokenNames::Name& name) const {
    if (name.content) return token_to_id(*name.content);
    return name.id && text_of(*name.id) ? name.id : std::nullopt;
  }

  void encode_normalized(TextPieces pieces,
                         const EncodeOptions& options,
                         std::vector<int64_t>& ids) const {
    normalizer_.apply(pieces);
    const std::string_view text = pieces.text;
    for (const auto& [span, id] : added_.split(text, true, options.parse_special_tokens)) {
      if (id >= 0) {
        ids.push_back(id);
        continue;
      }
      const auto start = std::min(pieces.start_bytes, span.end);
      TextPieces words(text.substr(span.begin, span.end - span.begin));
      words.words.push_back({0, words.text.size(), span.begin < start});
      words.start_bytes = start - std::min(start, span.begin);
      pre_tokenizer_.apply(words);
      for (const auto& word : words.words) model_.encode(words.of(word), ids);
    }
  }

  BpeModel model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AddedTokens added_;
  TokenDecoder decoder_;
  bool only_bytes_ = true;       // each token stands_for_bytes
  bool text_only_bytes_ = true;  // each that skip_special_tokens leaves
  AroundText around_;
  std::optional<int64_t> bos_;
  std::optional<int64_t> eos_;
};

class JsonTextStream : public TextStream {
 public:
  JsonTextStream(const JsonTokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer),
        skip_(skip_special_tokens),
        decoding_(tokenizer.decoding(skip_special_tokens)) {}

  std::string put(int64_t id) override {
    MISTRAL_EXT_CHECK(id >= 0, "decode: ids must not be negative, got {}", id);
    std::string text;
    const auto token = tokenizer_.text_of(id);
    if (token && !(skip_ && tokenizer_.is_skipped(*token))) decoding_.put(*token, text);
    return text;
  }

  std::string finish() override {
    std::string text;
    decoding_.finish(text);
    return text;
  }

 private:
  const JsonTokenizer& tokenizer_;
  bool skip_;
  TokenDecoding decoding_;
};

std::unique_ptr<TextStream> JsonTokenizer::text_stream(bool skip_special_tokens) const {
  return std::make_unique<JsonTextStream>(*this, skip_special_tokens);
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& file) {
  const io::File source(file);
  const auto folder = file.parent_path();
  auto content = read_tokenizer_json(source.read_all(kMostBytes), source.label());
  apply_settings(read_tokenizer_settings(folder), content.fields, source.label());
  return std::make_unique<JsonTokenizer>(
      std::move(content), source.label(), read_special_token_names(folder));
}

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text,
                                                const std::string& label,
                                                const SpecialTokenNames& names) {
  return std::make_unique<JsonTokenizer>(read_tokenizer_json(text, label), label, names);
}

}  // namespace mistral_ext::tokenizers
