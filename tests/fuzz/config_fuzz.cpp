// config.json: the text is JSON, the object a configuration.
#include "fuzz.h"
#include "mistral_ext/core/config.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/models/parameter_shapes.h"
#include "mistral_ext/models/stored_config.h"

using namespace mistral_ext;

namespace {

MistralConfig read(std::string_view text) {
  const fuzz::MemoryFile file(text);
  return models::config_of_stored(io::read_config_file(file.path()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto text = fuzz::as_text(data, size);
  const auto config = fuzz::parse_within({fuzz::kFixed, 128}, size, [&] { return read(text); });
  if (!config) return 0;
  config->validate();
  // Of one layer, as all are alike. No size of a weight may overflow, nor its bytes.
  auto one_layer = *config;
  one_layer.num_hidden_layers = 1;
  for (const auto& [name, shape] : models::parameter_shapes(one_layer)) {
    int64_t bytes = sizeof(double);
    for (const int64_t size : shape) {
      fuzz::require(size > 0 && !__builtin_mul_overflow(bytes, size, &bytes),
                    "a weight's bytes must be a number");
    }
  }
  const auto written = io::to_json(config->to_map(), "fuzz");
  fuzz::require(io::to_json(read(written).to_map(), "fuzz") == written,
                "a configuration that is written must read as the same");
  return 0;
}
