#include "mistral_ext/models/stored_config.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "mistral_ext/core/config_reader.h"

namespace mistral_ext::models {
namespace {

// Beside those of MistralConfig::to_map: what it has under another name, what saving says anew,
// and what names files that a saved folder has not (auto_map).
constexpr std::array<std::string_view, 10> kHeld = {"rope_theta",
                                                    "rope_scaling",
                                                    "original_max_position_embeddings",
                                                    "partial_rotary_factor",
                                                    "layer_types",
                                                    "architectures",
                                                    "dtype",
                                                    "torch_dtype",
                                                    "quantization_config",
                                                    "auto_map"};

}  // namespace

MistralConfig config_of_stored(ConfigMap fields) {
  const bool is_mistral =
      ConfigReader(fields, "config").string("model_type").value_or("mistral") == "mistral";
  if (is_mistral && fields.contains("layer_types")) fields["model_type"] = {"ministral"};
  return MistralConfig::from_map(fields);
}

ConfigMap extra_fields(const ConfigMap& fields) {
  const auto own = MistralConfig().to_map();
  ConfigMap extra;
  for (const auto& [name, value] : fields) {
    if (!own.contains(name) && std::ranges::find(kHeld, name) == kHeld.end()) {
      extra.emplace(name, value);
    }
  }
  return extra;
}

}  // namespace mistral_ext::models
