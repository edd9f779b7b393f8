#include "mistral_ext/io/checkpoint_index.h"

#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {
namespace {

constexpr int64_t kMostBytes = int64_t{64} << 20;

// A name that cannot lead out of the index's folder.
bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\0", 2)) == std::string::npos;
}

// Keeps {"weight_map": {tensor: file}} and passes over all else: `metadata` is for people.
class IndexReader : public JsonEvents {
 public:
  IndexReader(const std::string& label, std::map<std::string, std::string>& files)
      : label_(label), files_(files) {}

  void begin_object() override {
    check_value();
    ++depth_;
  }
  void end_object() override {
    if (--depth_ == 1) in_map_ = false;
  }
  void begin_array() override {
    check_value();
    MISTRAL_EXT_CHECK(!in_map_, "{}: weight_map must be a mapping, got a list", label_);
    MISTRAL_EXT_CHECK(depth_ > 0, "{}: must hold a JSON object, got a list", label_);
    ++depth_;
  }
  void end_array() override { --depth_; }

  void key(std::string name) override {
    if (depth_ == 1) {
      in_map_ = name == "weight_map";
      MISTRAL_EXT_CHECK(!in_map_ || !std::exchange(has_map_, true),
                        "{}: weight_map must be given once, got it twice",
                        label_);
    } else if (in_map_) {
      MISTRAL_EXT_CHECK(!files_.contains(name),
                        "{}: weight_map: {} must be given once, got it twice",
                        label_,
                        printable(name));
      name_ = std::move(name);
    }
  }

  void scalar(JsonScalar value) override {
    MISTRAL_EXT_CHECK(depth_ > 0, "{}: must hold a JSON object, got another value", label_);
    if (!in_map_) return;
    MISTRAL_EXT_CHECK(depth_ == 2, "{}: weight_map must be a mapping, got another value", label_);
    auto* file = std::get_if<std::string>(&value);
    MISTRAL_EXT_CHECK(file != nullptr && is_plain(*file),
                      "{}: weight_map: {} must be the name of a file in the same folder, got {}",
                      label_,
                      printable(name_),
                      file == nullptr ? "no string" : "\"" + printable(*file) + "\"");
    files_.emplace(std::move(name_), std::move(*file));
  }

  bool has_map() const { return has_map_; }

 private:
  // Lists and objects do not stand for a file.
  void check_value() const {
    MISTRAL_EXT_CHECK(!in_map_ || depth_ < 2,
                      "{}: weight_map: {} must be the name of a file in the same folder, got no "
                      "string",
                      label_,
                      printable(name_));
  }

  const std::string& label_;
  std::map<std::string, std::string>& files_;
  int depth_ = 0;
  bool in_map_ = false;
  bool has_map_ = false;
  std::string name_;
};

}  // namespace

std::map<std::string, std::string> read_checkpoint_index(const std::filesystem::path& path) {
  const File file(path);
  const auto text = file.read_all(kMostBytes);
  std::map<std::string, std::string> files;
  IndexReader reader(file.label(), files);
  parse_json(text, file.label(), reader);
  MISTRAL_EXT_CHECK(reader.has_map(), "{}: weight_map must be given, got none", file.label());
  return files;
}

}  // namespace mistral_ext::io
