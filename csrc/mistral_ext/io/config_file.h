#pragma once

#include <filesystem>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext::io {

// A JSON file that holds one object, such as config.json. Throws ValueError naming the file where
// it cannot be read, is longer than 16 MiB, holds more than 100,000 values, is no JSON object, or
// has a key twice.
ConfigMap read_config_file(const std::filesystem::path& path);

}  // namespace mistral_ext::io
