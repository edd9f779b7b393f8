// The only file that sees nlohmann's library. It is compiled with hidden visibility, so that a
// program with another version of that library keeps its own.
#include "mistral_ext/io/json.h"

#include <c10/macros/Export.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "mistral_ext/core/check.h"

namespace mistral_ext::io {
namespace {

using nlohmann::json;

class Adapter : public nlohmann::json_sax<json> {
 public:
  Adapter(const std::string& label, JsonEvents& events) : label_(label), events_(events) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (std::in_range<int64_t>(value)) return scalar(static_cast<int64_t>(value));
    return scalar(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return scalar(value);
  }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  // JSON has no such values: they are of the library's binary formats.
  bool binary(binary_t& /*value*/) override { return false; }
  bool key(string_t& name) override {
    events_.key(std::move(name));
    return true;
  }
  bool start_object(std::size_t /*elements*/) override {
    enter();
    events_.begin_object();
    return true;
  }
  bool end_object() override {
    --depth_;
    events_.end_object();
    return true;
  }
  bool start_array(std::size_t /*elements*/) override {
    enter();
    events_.begin_array();
    return true;
  }
  bool end_array() override {
    --depth_;
    events_.end_array();
    return true;
  }
  // The library's own message quotes the text, which may be no UTF-8.
  bool parse_error(std::size_t position,
                   const std::string& /*last_token*/,
                   const json::exception& /*error*/) override {
    MISTRAL_EXT_CHECK(false, "{}: must be JSON in UTF-8, and is none at byte {}", label_, position);
    return false;
  }

 private:
  bool scalar(JsonScalar value) {
    events_.scalar(std::move(value));
    return true;
  }
  void enter() {
    MISTRAL_EXT_CHECK(++depth_ <= kMostJsonDepth,
                      "{}: must be JSON of at most {} levels, got more",
                      label_,
                      kMostJsonDepth);
  }

  const std::string& label_;
  JsonEvents& events_;
  int depth_ = 0;
};

struct ToJson {
  const std::string& label;

  json operator()(std::nullptr_t) const { return nullptr; }
  json operator()(bool x) const { return x; }
  json operator()(int64_t x) const { return x; }
  json operator()(double x) const {
    MISTRAL_EXT_CHECK(std::isfinite(x), "{}: numbers must be finite, got {}", label, x);
    return x;
  }
  json operator()(const std::string& x) const { return x; }
  json operator()(const ConfigList& list) const {
    auto array = json::array();
    for (const auto& item : list) array.push_back(std::visit(*this, item.value));
    return array;
  }
  json operator()(const ConfigMap& map) const {
    auto object = json::object();
    for (const auto& [key, item] : map) object[key] = std::visit(*this, item.value);
    return object;
  }
};

}  // namespace

C10_EXPORT void parse_json(std::string_view text, const std::string& label, JsonEvents& events) {
  // To the library a NUL is the end of the text.
  const auto nul = text.find('\0');
  MISTRAL_EXT_CHECK(nul == std::string_view::npos,
                    "{}: must be JSON in UTF-8, and is none at byte {}",
                    label,
                    nul + 1);
  Adapter adapter(label, events);
  json::sax_parse(text.begin(), text.end(), &adapter, json::input_format_t::json);
}

C10_EXPORT std::string to_json(const ConfigMap& map, const std::string& label, bool indented) {
  const auto object = ToJson{label}(map);
  try {
    return indented ? object.dump(2) + "\n" : object.dump();
  } catch (const json::exception&) {
    MISTRAL_EXT_CHECK(false, "{}: strings must be UTF-8, got other bytes", label);
  }
}

}  // namespace mistral_ext::io
