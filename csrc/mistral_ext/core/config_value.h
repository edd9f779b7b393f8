#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace mistral_ext {

// A value of a configuration, as JSON and Python dictionaries have them.
struct ConfigValue;
using ConfigList = std::vector<ConfigValue>;
using ConfigMap = std::map<std::string, ConfigValue>;

struct ConfigValue {
  using Variant =
      std::variant<std::nullptr_t, bool, int64_t, double, std::string, ConfigList, ConfigMap>;
  Variant value = nullptr;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
};

}  // namespace mistral_ext
