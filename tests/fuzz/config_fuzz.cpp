// config.json: the text is JSON, the object a configuration.
#include "fuzz.h"
#include "mistral_ext/core/config.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/json.h"

using namespace mistral_ext;

namespace {

MistralConfig read(std::string_view text) {
  const fuzz::MemoryFile file(text);
  return MistralConfig::from_map(io::read_config_file(file.path()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto text = fuzz::as_text(data, size);
  const auto config = fuzz::parse_within({fuzz::kFixed, 128}, size, [&] { return read(text); });
  if (!config) return 0;
  config->validate();
  const auto written = io::to_json(config->to_map(), "fuzz");
  fuzz::require(io::to_json(read(written).to_map(), "fuzz") == written,
                "a configuration that is written must read as the same");
  return 0;
}
