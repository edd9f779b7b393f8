#include "mistral_ext/io/config_file.h"

#include <utility>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {
namespace {

constexpr int64_t kMostBytes = int64_t{16} << 20;
// A value takes some hundred bytes of memory and two of the text: without a limit a small file
// could ask for much.
constexpr int64_t kMostValues = 100'000;

class Builder : public JsonEvents {
 public:
  explicit Builder(const std::string& label) : label_(label) {}

  void begin_object() override { open_.push_back({{ConfigMap()}, {}}); }
  void begin_array() override {
    check_root();
    open_.push_back({{ConfigList()}, {}});
  }
  void key(std::string name) override {
    MISTRAL_EXT_CHECK(!std::get<ConfigMap>(open_.back().value.value).contains(name),
                      "{}: {} must be given once, got it twice",
                      label_,
                      printable(name));
    open_.back().key = std::move(name);
  }
  void end_object() override { close(); }
  void end_array() override { close(); }
  void scalar(JsonScalar value) override {
    check_root();
    std::visit([this](auto&& x) { put({std::forward<decltype(x)>(x)}); }, std::move(value));
  }

  ConfigMap take() { return std::get<ConfigMap>(std::move(root_.value)); }

 private:
  struct Open {
    ConfigValue value;  // a list or a mapping
    std::string key;    // of the entry that comes next
  };

  void check_root() const {
    MISTRAL_EXT_CHECK(!open_.empty(), "{}: must hold a JSON object, got another value", label_);
  }
  void close() {
    auto value = std::move(open_.back().value);
    open_.pop_back();
    put(std::move(value));
  }
  void put(ConfigValue value) {
    MISTRAL_EXT_CHECK(
        ++values_ <= kMostValues, "{}: must hold at most {} values, got more", label_, kMostValues);
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (auto* list = std::get_if<ConfigList>(&open_.back().value.value)) {
      list->push_back(std::move(value));
    } else {
      auto& map = std::get<ConfigMap>(open_.back().value.value);
      map.emplace(std::move(open_.back().key), std::move(value));
    }
  }

  const std::string& label_;
  std::vector<Open> open_;
  ConfigValue root_;
  int64_t values_ = 0;
};

}  // namespace

ConfigMap read_config_file(const std::filesystem::path& path) {
  const File file(path);
  return parse_config(file.read_all(kMostBytes), file.label());
}

ConfigMap parse_config(std::string_view text, const std::string& label) {
  MISTRAL_EXT_CHECK(std::ssize(text) <= kMostBytes,
                    "{}: must have at most {} bytes, got {}",
                    label,
                    kMostBytes,
                    text.size());
  Builder builder(label);
  parse_json(text, label, builder);
  return builder.take();
}

}  // namespace mistral_ext::io
