#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace mistral_ext::io {

// The weight_map of a model.safetensors.index.json: a file's name for each tensor's. Every file is
// a plain name, with no folder in it. Throws ValueError naming the index and the field; a longer
// one than 64 MiB is refused.
std::map<std::string, std::string> read_checkpoint_index(const std::filesystem::path& path);

}  // namespace mistral_ext::io
