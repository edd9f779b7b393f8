// model.safetensors.index.json: whatever it says, no name of a file leads out of its folder.
#include "fuzz.h"
#include "mistral_ext/io/checkpoint_index.h"
#include "mistral_ext/io/json.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::MemoryFile file(fuzz::as_text(data, size));
  const auto files = fuzz::parse_within(
      {fuzz::kFixed, 64}, size, [&] { return io::read_checkpoint_index(file.path()); });
  if (!files) return 0;
  ConfigMap weight_map;
  for (const auto& [tensor, name] : *files) {
    const std::filesystem::path path(name);
    fuzz::require(path.is_relative() && path.has_filename() && path.filename() == path &&
                      name != ".." && name != "." && name.find('\0') == std::string::npos,
                  "a file's name must lead to the index's folder");
    weight_map[tensor] = {name};
  }
  const auto written = io::to_json({{"weight_map", {weight_map}}}, "fuzz");
  const fuzz::MemoryFile again(written);
  fuzz::require(io::read_checkpoint_index(again.path()) == *files,
                "an index that is written must read as the same");
  return 0;
}
