#include "mistral_ext/tokenizers/tekken_file.h"

#include <array>
#include <optional>
#include <unordered_set>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/base64.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr int64_t kMostSpecialTokens = 1 << 14;

// Those of the files that do not list them, up to v7.
constexpr std::array kFormerSpecialTokens = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

// Keeps config, vocab and special_tokens of the outermost object, and passes over the rest.
class Reader : public io::JsonEvents {
 public:
  explicit Reader(const std::string& label) : label_(label) {}

  TekkenFile take();

  void begin_object() override {
    ++depth_;
    check_shape(depth_ != 2 || !reads_entries());
    if (depth_ == 3) entry_ = {};
  }
  void begin_array() override {
    ++depth_;
    check_shape(depth_ > 1 && (depth_ != 2 || section_ != "config") &&
                (depth_ < 3 || !reads_entries()));
  }
  void end_array() override { --depth_; }
  void end_object() override {
    if (depth_ == 3 && reads_entries()) end_entry();
    --depth_;
  }
  void key(std::string name) override {
    if (depth_ == 1) {
      section_ = std::move(name);
      const bool ours = section_ == "config" || section_ == "vocab" || section_ == "special_tokens";
      MISTRAL_EXT_CHECK(!ours || sections_.insert(section_).second,
                        "{}: {} must be given once, got it twice",
                        label_,
                        section_);
    } else {
      key_ = std::move(name);
    }
  }
  void scalar(io::JsonScalar value) override {
    check_shape(depth_ >= 1);
    if (depth_ == 1) {
      // special_tokens: null is as if it were absent.
      check_shape(section_ != "config" && section_ != "vocab");
      if (section_ == "special_tokens") sections_.erase(section_);
    } else if (section_ == "config" && depth_ == 2) {
      config(std::move(value));
    } else if (reads_entries()) {
      check_shape(depth_ == 3);
      entry(std::move(value));
    }
  }

 private:
  struct Entry {
    std::optional<int64_t> rank;
    std::optional<std::string> text;  // token_bytes of a token, token_str of a special one
  };

  bool reads_entries() const { return section_ == "vocab" || section_ == "special_tokens"; }
  void check_shape(bool condition) const {
    MISTRAL_EXT_CHECK(condition,
                      "{}: must be an object with the object config and lists of objects vocab and "
                      "special_tokens, got another value in {}",
                      label_,
                      section_.empty() ? "its place" : io::printable(section_));
  }
  template <class T>
  T as(io::JsonScalar value, const char* rule) const {
    auto* found = std::get_if<T>(&value);
    MISTRAL_EXT_CHECK(found != nullptr,
                      "{}: {}: {} must be {}, got another value",
                      label_,
                      section_,
                      io::printable(key_),
                      rule);
    return std::move(*found);
  }
  void config(io::JsonScalar value) {
    if (key_ == "pattern") {
      pattern_ = as<std::string>(std::move(value), "a text");
    } else if (key_ == "version") {
      version_ = as<std::string>(std::move(value), "a text");
    } else if (key_ == "default_vocab_size") {
      vocab_size_ = as<int64_t>(std::move(value), "an integer");
    } else if (key_ == "default_num_special_tokens") {
      num_special_tokens_ = as<int64_t>(std::move(value), "an integer");
    }
  }
  void entry(io::JsonScalar value) {
    if (key_ == "rank") {
      entry_.rank = as<int64_t>(std::move(value), "an integer");
    } else if (key_ == (section_ == "vocab" ? "token_bytes" : "token_str")) {
      entry_.text = as<std::string>(std::move(value), "a text");
    }
  }
  void end_entry() {
    auto& list = section_ == "vocab" ? tokens_ : special_tokens_;
    MISTRAL_EXT_CHECK(entry_.rank == static_cast<int64_t>(list.size()) && entry_.text,
                      "{}: {}: entry {} must have that rank, and {}",
                      label_,
                      section_,
                      list.size(),
                      section_ == "vocab" ? "token_bytes" : "token_str");
    if (section_ == "vocab") {
      auto bytes = decode_base64(*entry_.text);
      MISTRAL_EXT_CHECK(bytes.has_value(),
                        "{}: vocab: token_bytes of entry {} must be base64, got {}",
                        label_,
                        list.size(),
                        io::printable(*entry_.text));
      list.push_back(std::move(*bytes));
    } else {
      list.push_back(std::move(*entry_.text));
    }
  }

  const std::string& label_;
  int depth_ = 0;
  std::string section_;  // the outermost key
  std::string key_;
  Entry entry_;
  std::unordered_set<std::string> sections_;
  std::optional<std::string> pattern_;
  std::optional<std::string> version_;
  std::optional<int64_t> vocab_size_;
  std::optional<int64_t> num_special_tokens_;
  std::vector<std::string> tokens_;
  std::vector<std::string> special_tokens_;
};

TekkenFile Reader::take() {
  MISTRAL_EXT_CHECK(pattern_ && version_ && vocab_size_ && num_special_tokens_,
                    "{}: config must have pattern, version, default_vocab_size and "
                    "default_num_special_tokens, got less",
                    label_);
  const auto listed = sections_.contains("special_tokens");
  if (!listed) {
    MISTRAL_EXT_CHECK(
        *version_ == "v1" || *version_ == "v2" || *version_ == "v3" || *version_ == "v7",
        "{}: special_tokens must be there from version v11 on, got {} without",
        label_,
        io::printable(*version_));
    special_tokens_.assign(kFormerSpecialTokens.begin(), kFormerSpecialTokens.end());
  }
  const auto special = *num_special_tokens_;
  MISTRAL_EXT_CHECK(
      special >= static_cast<int64_t>(special_tokens_.size()) && special <= kMostSpecialTokens,
      "{}: config: default_num_special_tokens must be from {}, the special tokens "
      "that have names, to {}, got {}",
      label_,
      special_tokens_.size(),
      kMostSpecialTokens,
      special);
  const auto tokens = static_cast<int64_t>(tokens_.size());
  MISTRAL_EXT_CHECK(
      *vocab_size_ >= special && *vocab_size_ - special <= tokens,
      "{}: config: default_vocab_size must be from {} to {}, with all of vocab, got {}",
      label_,
      special,
      special + tokens,
      *vocab_size_);
  tokens_.resize(*vocab_size_ - special);
  for (auto id = static_cast<int64_t>(special_tokens_.size()); id < special; ++id) {
    special_tokens_.push_back(fmt::format("<SPECIAL_{}>", id));
  }
  std::unordered_set<std::string_view> seen;
  for (const auto& token : special_tokens_) {
    MISTRAL_EXT_CHECK(!token.empty() && seen.insert(token).second,
                      "{}: special_tokens must have names that differ, got {} twice",
                      label_,
                      io::printable(token));
  }
  return {
      std::move(*version_), std::move(*pattern_), std::move(tokens_), std::move(special_tokens_)};
}

}  // namespace

TekkenFile read_tekken_file(std::string_view text, const std::string& label) {
  Reader reader(label);
  io::parse_json(text, label, reader);
  return reader.take();
}

}  // namespace mistral_ext::tokenizers
