// generation_config.json. What it says may still be refused when it is used.
#include "fuzz.h"
#include "mistral_ext/generation/generation_config_from_map.h"
#include "mistral_ext/io/config_file.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::MemoryFile file(fuzz::as_text(data, size));
  const auto config = fuzz::parse_within({fuzz::kFixed, 128}, size, [&] {
    return generation::generation_config_from_map(io::read_config_file(file.path()));
  });
  if (!config) return 0;
  try {
    config->validate();
  } catch (const c10::ValueError&) {
  }
  return 0;
}
