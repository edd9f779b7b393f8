#pragma once

#include <optional>
#include <string>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext {

// Typed look-ups in a ConfigMap whose errors name the field. A null counts as absent, except for
// `has`, which asks for the key itself.
class ConfigReader {
 public:
  // `prefix` goes before the names in messages: "config" or "config: rope_parameters".
  ConfigReader(const ConfigMap& map, std::string prefix) : map_(map), prefix_(std::move(prefix)) {}

  bool has(const std::string& key) const { return map_.contains(key); }
  std::optional<int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> string(const std::string& key) const;
  const ConfigMap* map(const std::string& key) const;
  const ConfigList* list(const std::string& key) const;

 private:
  const ConfigValue* find(const std::string& key) const;
  [[noreturn]] void fail(const std::string& key, const char* expected) const;

  const ConfigMap& map_;
  std::string prefix_;
};

}  // namespace mistral_ext
