#include "mistral_ext/models/checkpoint_folder.h"

#include <array>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/sharded_safetensors.h"
#include "mistral_ext/models/mistral_format.h"
#include "mistral_ext/models/stored_config.h"

namespace mistral_ext::models {
namespace {

namespace fs = std::filesystem;

std::optional<at::ScalarType> read_dtype(const ConfigReader& config) {
  auto name = config.string("dtype");
  if (!name) name = config.string("torch_dtype");
  if (!name) return std::nullopt;
  constexpr std::array<std::pair<std::string_view, at::ScalarType>, 4> kDtypes = {
      {{"float32", at::kFloat},
       {"bfloat16", at::kBFloat16},
       {"float16", at::kHalf},
       {"float64", at::kDouble}}};
  const std::string bare = name->starts_with("torch.") ? name->substr(6) : *name;
  for (const auto& [known, dtype] : kDtypes) {
    if (bare == known) return dtype;
  }
  MISTRAL_EXT_CHECK(
      false, "config: dtype must be float32, bfloat16, float16 or float64, got {}", *name);
  return std::nullopt;
}

void read_config(const fs::path& folder, CheckpointFolder& checkpoint) {
  const bool is_hugging_face =
      io::is_there(folder / "config.json") || !io::is_there(folder / "params.json");
  const auto path = folder / (is_hugging_face ? "config.json" : "params.json");
  const auto map = io::read_config_file(path);
  try {
    checkpoint.config = is_hugging_face ? config_of_stored(map) : config_of_params(map);
    // The tokenizers of Mistral's format, of which params.json says nothing, all have these.
    checkpoint.extra_config =
        is_hugging_face ? extra_fields(map)
                        : ConfigMap{{"bos_token_id", {int64_t{1}}}, {"eos_token_id", {int64_t{2}}}};
    const ConfigReader reader(map, "config");
    checkpoint.dtype = read_dtype(reader);
    MISTRAL_EXT_CHECK(reader.map("quantization_config") == nullptr,
                      "config: quantization_config must be absent, got one");
  } catch (const c10::ValueError& error) {
    MISTRAL_EXT_CHECK(
        false, "load: {}: {}", io::printable(path.native()), error.what_without_backtrace());
  }
}

}  // namespace

CheckpointFolder open_checkpoint(const fs::path& folder) {
  CheckpointFolder checkpoint;
  checkpoint.label = "load: " + io::printable(folder.native());
  std::error_code error;
  MISTRAL_EXT_CHECK(fs::is_directory(folder, error),
                    "{}: must be a folder, got {}",
                    checkpoint.label,
                    io::is_there(folder) ? "something else" : "none");
  read_config(folder, checkpoint);
  for (const std::string name : {"model", "consolidated"}) {
    const auto whole = folder / (name + ".safetensors");
    const auto index = folder / (name + ".safetensors.index.json");
    checkpoint.is_mistral_format = name == "consolidated";
    if (io::is_there(whole)) {
      checkpoint.tensors = std::make_unique<io::SafetensorsFile>(whole);
      return checkpoint;
    }
    if (io::is_there(index)) {
      checkpoint.tensors = std::make_unique<io::ShardedSafetensors>(index);
      return checkpoint;
    }
  }
  MISTRAL_EXT_CHECK(false,
                    "{}: must hold model.safetensors, model.safetensors.index.json, "
                    "consolidated.safetensors or consolidated.safetensors.index.json, got none of "
                    "them",
                    checkpoint.label);
  throw std::logic_error("unreachable");
}

}  // namespace mistral_ext::models
