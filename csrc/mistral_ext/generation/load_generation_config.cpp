#include "mistral_ext/generation/load_generation_config.h"

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/tokenizers/load_tokenizer.h"

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

// Of a folder in Mistral's own format, whose files of numbers say nothing about ends.
void add_end_of_tokenizer(const fs::path& folder, ConfigMap& map) {
  const auto tokenizer = tokenizers::find_tokenizer(folder);
  if (tokenizer == nullptr || !tokenizer->eos_token_id()) return;
  map["eos_token_id"].value = *tokenizer->eos_token_id();
}

}  // namespace

GenerationConfig load_generation_config(const fs::path& folder, BeamSearchConfig* beams) {
  auto path = folder / "generation_config.json";
  const bool is_own = io::is_there(path);
  if (!is_own) path = folder / "config.json";
  const bool is_mistral_format =
      !io::is_there(folder / "config.json") && io::is_there(folder / "params.json");
  ConfigMap map;
  if (!io::is_there(path) && io::is_there(folder / models::kPrepackedFile)) {
    path = folder / models::kPrepackedFile;
    map = models::read_prepacked_config(folder);
  } else if (is_own || !is_mistral_format) {
    map = io::read_config_file(path);
  }
  if (!is_own) map = ends_of(map);
  if (!is_own && is_mistral_format) map["top_k"].value = int64_t{0};  // not Hugging Face's default
  if (is_mistral_format && !map.contains("eos_token_id")) add_end_of_tokenizer(folder, map);
  try {
    return generation_config_from_map(map, beams);
  } catch (const c10::ValueError& error) {
    MISTRAL_EXT_CHECK(
        false, "load: {}: {}", io::printable(path.native()), error.what_without_backtrace());
  }
  throw std::logic_error("unreachable");
}

}  // namespace mistral_ext::generation
