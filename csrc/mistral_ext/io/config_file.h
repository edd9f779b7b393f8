#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext::io {

// A JSON file that holds one object, such as config.json. Throws ValueError naming the file where
// it cannot be read, is longer than 16 MiB, holds more than 100,000 values, is no JSON object, or
// has a key twice.
ConfigMap read_config_file(const std::filesystem::path& path);

// The same of a text, which messages call `label`.
ConfigMap parse_config(std::string_view text, const std::string& label);

}  // namespace mistral_ext::io
