#include "mistral_ext/core/config_reader.h"

#include <cmath>

#include "mistral_ext/core/check.h"

namespace mistral_ext {
namespace {

std::string describe(const ConfigValue& value) {
  struct Describe {
    std::string operator()(std::nullptr_t) const { return "null"; }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(int64_t x) const { return std::to_string(x); }
    std::string operator()(double x) const { return fmt::format("{}", x); }
    std::string operator()(const std::string& x) const { return "\"" + x + "\""; }
    std::string operator()(const ConfigList&) const { return "a list"; }
    std::string operator()(const ConfigMap&) const { return "a mapping"; }
  };
  return std::visit(Describe{}, value.value);
}

}  // namespace

const ConfigValue* ConfigReader::find(const std::string& key) const {
  const auto found = map_.find(key);
  return found == map_.end() || found->second.is_null() ? nullptr : &found->second;
}

void ConfigReader::fail(const std::string& key, const char* expected) const {
  MISTRAL_EXT_CHECK(
      false, "{}: {} must be {}, got {}", prefix_, key, expected, describe(map_.at(key)));
  throw std::logic_error("unreachable");
}

std::optional<int64_t> ConfigReader::integer(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* x = std::get_if<int64_t>(&value->value)) return *x;
  // JSON written by some tools has 4096.0
  if (const auto* x = std::get_if<double>(&value->value);
      x != nullptr && std::trunc(*x) == *x && std::abs(*x) < 9e15) {
    return static_cast<int64_t>(*x);
  }
  fail(key, "an integer");
}

std::optional<double> ConfigReader::number(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* x = std::get_if<double>(&value->value); x != nullptr && std::isfinite(*x)) {
    return *x;
  }
  if (const auto* x = std::get_if<int64_t>(&value->value)) return static_cast<double>(*x);
  fail(key, "a finite number");
}

std::optional<bool> ConfigReader::boolean(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* x = std::get_if<bool>(&value->value)) return *x;
  fail(key, "true or false");
}

std::optional<std::string> ConfigReader::string(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* x = std::get_if<std::string>(&value->value)) return *x;
  fail(key, "a string");
}

const ConfigMap* ConfigReader::map(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return nullptr;
  if (const auto* x = std::get_if<ConfigMap>(&value->value)) return x;
  fail(key, "a mapping");
}

const ConfigList* ConfigReader::list(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return nullptr;
  if (const auto* x = std::get_if<ConfigList>(&value->value)) return x;
  fail(key, "a list");
}

}  // namespace mistral_ext
