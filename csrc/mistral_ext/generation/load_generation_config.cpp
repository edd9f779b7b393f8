#include "mistral_ext/generation/load_generation_config.h"

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/models/prepacked.h"

namespace mistral_ext::generation {
namespace {

namespace fs = std::filesystem;

// What of a model's configuration is about generating.
ConfigMap ends_of(const ConfigMap& config) {
  ConfigMap map;
  for (const char* name : {"eos_token_id", "pad_token_id"}) {
    const auto found = config.find(name);
    if (found != config.end()) map.insert(*found);
  }
  return map;
}

}  // namespace

GenerationConfig load_generation_config(const fs::path& folder) {
  auto path = folder / "generation_config.json";
  const bool is_own = io::is_there(path);
  if (!is_own) path = folder / "config.json";
  const bool is_there = io::is_there(path);
  if (!is_there && io::is_there(folder / models::kPrepackedFile)) {
    path = folder / models::kPrepackedFile;
  } else if (!is_there && io::is_there(folder / "params.json")) {
    return {};
  }
  const bool is_prepacked = path.filename() == models::kPrepackedFile;
  const auto map =
      is_prepacked ? models::read_prepacked_config(folder) : io::read_config_file(path);
  try {
    return generation_config_from_map(is_own ? map : ends_of(map));
  } catch (const c10::ValueError& error) {
    MISTRAL_EXT_CHECK(
        false, "load: {}: {}", io::printable(path.native()), error.what_without_backtrace());
  }
  throw std::logic_error("unreachable");
}

}  // namespace mistral_ext::generation
