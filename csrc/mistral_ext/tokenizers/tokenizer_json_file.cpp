#include "mistral_ext/tokenizers/tokenizer_json_file.h"

#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::tokenizers {
namespace {

// Of all but the vocabulary and the merges: a value takes some hundred bytes of memory and two of
// the text. A thousand added tokens are ten thousand values.
constexpr int64_t kMostValues = 200'000;

class Reader : public io::JsonEvents {
 public:
  Reader(const std::string& label, TokenizerJsonFile& file)
      : label_(label), vocabulary_label_(label + ": model.vocab"), file_(file) {}

  void begin_object() override {
    switch (place()) {
      case Place::kVocabulary:
        refuse("model.vocab", "whole numbers");
      case Place::kMerges:
      case Place::kMerge:
        refuse("model.merges", "strings or pairs of strings");
      case Place::kElsewhere:
        break;
    }
    const bool vocabulary = at_model() && key_ == "vocab";
    if (vocabulary) begin_once(file_.has_vocabulary);
    check_not(at_model() && key_ == "merges", "model.merges", "a list");
    open_.push_back({vocabulary ? Place::kVocabulary : Place::kElsewhere, {ConfigMap()}, {}});
    open_.back().key = std::exchange(key_, {});
  }

  void begin_array() override {
    MISTRAL_EXT_CHECK(!open_.empty(), "{}: must hold a JSON object, got a list", label_);
    switch (place()) {
      case Place::kVocabulary:
        refuse("model.vocab", "whole numbers");
      case Place::kMerge:
        refuse("model.merges", "strings or pairs of strings");
      case Place::kMerges:
        parts_ = 0;
        file_.merges.emplace_back();
        open_.push_back({Place::kMerge, {}, {}});
        return;
      case Place::kElsewhere:
        break;
    }
    const bool merges = at_model() && key_ == "merges";
    if (merges) begin_once(file_.has_merges);
    check_not(at_model() && key_ == "vocab", "model.vocab", "a mapping");
    open_.push_back({merges ? Place::kMerges : Place::kElsewhere, {ConfigList()}, {}});
    open_.back().key = std::exchange(key_, {});
  }

  void key(std::string name) override {
    if (place() == Place::kElsewhere) {
      MISTRAL_EXT_CHECK(!std::get<ConfigMap>(open_.back().value.value).contains(name),
                        "{}: {} must be given once, got it twice",
                        label_,
                        io::printable(name));
    }
    key_ = std::move(name);
  }

  void end_object() override { close(); }

  void end_array() override {
    if (place() == Place::kMerge) {
      check_pair(parts_ == 2);
      open_.pop_back();
      return;
    }
    close();
  }

  void scalar(io::JsonScalar value) override {
    MISTRAL_EXT_CHECK(!open_.empty(), "{}: must hold a JSON object, got another value", label_);
    switch (place()) {
      case Place::kVocabulary: {
        const auto* id = std::get_if<int64_t>(&value);
        if (id == nullptr) refuse("model.vocab", "whole numbers");
        return file_.vocabulary.add(key_, *id, vocabulary_label_);
      }
      case Place::kMerges:
        return add_merge(std::get_if<std::string>(&value));
      case Place::kMerge:
        return add_part(std::get_if<std::string>(&value));
      case Place::kElsewhere:
        check_not(at_model() && key_ == "vocab", "model.vocab", "a mapping");
        check_not(at_model() && key_ == "merges", "model.merges", "a list");
        std::visit([this](auto&& x) { put({std::forward<decltype(x)>(x)}, std::move(key_)); },
                   std::move(value));
    }
  }

  ConfigMap take() { return std::get<ConfigMap>(std::move(root_.value)); }

 private:
  enum class Place { kElsewhere, kVocabulary, kMerges, kMerge };
  struct Open {
    Place place;
    ConfigValue value;  // a list or a mapping
    std::string key;    // under which it goes into the one around it
  };

  Place place() const { return open_.empty() ? Place::kElsewhere : open_.back().place; }
  bool at_model() const { return open_.size() == 2 && open_.back().key == "model"; }

  [[noreturn]] void refuse(const char* field, const char* expected) const {
    MISTRAL_EXT_CHECK(false, "{}: {} must hold {}, got another value", label_, field, expected);
    __builtin_unreachable();  // the check throws
  }
  void check_not(bool wrong, const char* field, const char* expected) const {
    MISTRAL_EXT_CHECK(!wrong, "{}: {} must be {}, got another value", label_, field, expected);
  }
  void begin_once(bool& seen) {
    MISTRAL_EXT_CHECK(
        !std::exchange(seen, true), "{}: model.{} must be given once, got it twice", label_, key_);
  }
  void check_pair(bool right) const {
    MISTRAL_EXT_CHECK(right,
                      "{}: model.merges[{}] must be two tokens, got others",
                      label_,
                      file_.merges.size() - 1);
  }

  // "a b", as older files have it.
  void add_merge(std::string* text) {
    if (text == nullptr) refuse("model.merges", "strings or pairs of strings");
    // Trained files in this form begin with a comment, which is no merge.
    if (text->starts_with("#version")) return;
    const auto space = text->find(' ');
    file_.merges.emplace_back();
    check_pair(space != std::string::npos && text->find(' ', space + 1) == std::string::npos);
    text->erase(space, 1);
    file_.merges.back() = {std::move(*text), space};
  }
  void add_part(std::string* text) {
    if (text == nullptr) refuse("model.merges", "strings or pairs of strings");
    auto& merge = file_.merges.back();
    check_pair(++parts_ <= 2);
    merge.text += *text;
    if (parts_ == 1) merge.left = text->size();
  }

  void close() {
    auto closed = std::move(open_.back());
    open_.pop_back();
    if (closed.place == Place::kElsewhere) put(std::move(closed.value), std::move(closed.key));
  }
  void put(ConfigValue value, std::string key) {
    MISTRAL_EXT_CHECK(++values_ <= kMostValues,
                      "{}: must hold at most {} values beside vocab and merges, got more",
                      label_,
                      kMostValues);
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (auto* list = std::get_if<ConfigList>(&open_.back().value.value)) {
      list->push_back(std::move(value));
    } else {
      std::get<ConfigMap>(open_.back().value.value).emplace(std::move(key), std::move(value));
    }
  }

  const std::string& label_;
  std::string vocabulary_label_;
  TokenizerJsonFile& file_;
  std::vector<Open> open_;
  std::string key_;  // of the value that comes next
  ConfigValue root_;
  int64_t values_ = 0;
  int parts_ = 0;  // of the merge that is being read
};

}  // namespace

TokenizerJsonFile read_tokenizer_json(std::string_view text, const std::string& label) {
  TokenizerJsonFile file;
  Reader reader(label, file);
  io::parse_json(text, label, reader);
  file.fields = reader.take();
  return file;
}

}  // namespace mistral_ext::tokenizers
