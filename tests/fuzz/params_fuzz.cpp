// Mistral's params.json.
#include "fuzz.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/models/mistral_format.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::MemoryFile file(fuzz::as_text(data, size));
  const auto config = fuzz::parse_within({int64_t{2} << 20, 128}, size, [&] {
    return models::config_of_params(io::read_config_file(file.path()));
  });
  if (!config) return 0;
  config->validate();
  const auto written = io::to_json(config->to_map(), "fuzz");
  const auto again = MistralConfig::from_map(config->to_map());
  fuzz::require(io::to_json(again.to_map(), "fuzz") == written,
                "a configuration that is written must read as the same");
  return 0;
}
