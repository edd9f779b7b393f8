#include "mistral_ext/tokenizers/tekken.h"

#include <unordered_map>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/tokenizers/byte_pair_encoder.h"
#include "mistral_ext/tokenizers/regex.h"
#include "mistral_ext/tokenizers/special_tokens.h"
#include "mistral_ext/tokenizers/tekken_file.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr int64_t kMostBytes = int64_t{256} << 20;

class Tekken : public Tokenizer {
 public:
  Tekken(TekkenFile file, const std::string& label)
      : encoder_(file.tokens, label),
        pattern_(file.pattern, RegexSyntax::kRust, label + ": config: pattern"),
        names_(std::move(file.special_tokens)) {
    for (size_t id = 0; id < names_.size(); ++id) {
      ids_.emplace(names_[id], static_cast<int64_t>(id));
      special_.add(names_[id], static_cast<int64_t>(id));
    }
    special_.seal();
  }

  std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    check_utf8(text, "encode");
    std::vector<int64_t> ids;
    if (options.add_special_tokens && bos_token_id()) ids.push_back(*bos_token_id());
    const auto encode_text = [&](std::string_view part) {
      for (const auto [begin, end] : pattern_.find_all(part)) {
        encoder_.encode(part.substr(begin, end - begin), special_count(), ids);
      }
    };
    if (options.parse_special_tokens) {
      special_.split(text, encode_text, [&](int64_t id) { ids.push_back(id); });
    } else {
      encode_text(text);
    }
    return ids;
  }

  std::unique_ptr<TextStream> text_stream(bool skip_special_tokens) const override;

  int64_t vocab_size() const override { return special_count() + encoder_.size(); }
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    if (const auto found = ids_.find(token); found != ids_.end()) return found->second;
    const auto rank = encoder_.rank(token);
    return rank < 0 ? std::nullopt : std::optional(rank + special_count());
  }
  std::string id_to_token(int64_t id) const override {
    MISTRAL_EXT_CHECK(id >= 0 && id < vocab_size(),
                      "id_to_token: id must be from 0 to {}, got {}",
                      vocab_size() - 1,
                      id);
    if (is_special(id)) return names_[id];
    std::string text;
    CharacterBuffer buffer(CharacterBuffer::Replace::kBeginning);
    buffer.put(bytes(id), text);
    buffer.finish(text);
    return text;
  }
  bool is_special(int64_t id) const override { return id >= 0 && id < special_count(); }
  std::optional<int64_t> bos_token_id() const override { return special_id("<s>"); }
  std::optional<int64_t> eos_token_id() const override { return special_id("</s>"); }

  std::string_view bytes(int64_t id) const { return encoder_.token(id - special_count()); }
  const std::string& name(int64_t id) const { return names_[id]; }

 private:
  int64_t special_count() const { return static_cast<int64_t>(names_.size()); }
  std::optional<int64_t> special_id(std::string_view name) const {
    const auto found = ids_.find(name);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  BytePairEncoder encoder_;
  Regex pattern_;
  std::vector<std::string> names_;                     // of the special tokens
  std::unordered_map<std::string_view, int64_t> ids_;  // views of them
  SpecialTokens special_;
};

class TekkenStream : public TextStream {
 public:
  TekkenStream(const Tekken& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string put(int64_t id) override {
    MISTRAL_EXT_CHECK(id >= 0, "decode: ids must not be negative, got {}", id);
    std::string text;
    if (id >= tokenizer_.vocab_size()) return text;
    if (!tokenizer_.is_special(id)) {
      buffer_.put(tokenizer_.bytes(id), text);
      return text;
    }
    // No character goes across a special token, be it skipped or not.
    buffer_.finish(text);
    if (!skip_special_tokens_) text += tokenizer_.name(id);
    return text;
  }

  std::string finish() override {
    std::string text;
    buffer_.finish(text);
    return text;
  }

 private:
  const Tekken& tokenizer_;
  const bool skip_special_tokens_;
  CharacterBuffer buffer_{CharacterBuffer::Replace::kBeginning};
};

std::unique_ptr<TextStream> Tekken::text_stream(bool skip_special_tokens) const {
  return std::make_unique<TekkenStream>(*this, skip_special_tokens);
}

}  // namespace

std::unique_ptr<Tokenizer> load_tekken(const std::filesystem::path& file) {
  const io::File opened(file);
  return parse_tekken(opened.read_all(kMostBytes), opened.label());
}

std::unique_ptr<Tokenizer> parse_tekken(std::string_view text, const std::string& label) {
  return std::make_unique<Tekken>(read_tekken_file(text, label), label);
}

}  // namespace mistral_ext::tokenizers
