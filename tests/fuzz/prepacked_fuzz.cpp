// A prepacked checkpoint: a safetensors file with a checksum over its header, which is put right
// here where 16 zeros stand for it, or nothing else would ever be read.
#include <fmt/format.h>

#include <iterator>

#include "fuzz.h"
#include "mistral_ext/io/checksum.h"
#include "mistral_ext/io/prepacked_file.h"
#include "mistral_ext/io/safetensors_dtype.h"

using namespace mistral_ext;

namespace {

constexpr std::string_view kNoChecksum = "\"header_xxh3\":\"0000000000000000\"";

void add(std::string& text, int64_t number) {
  fmt::format_to(std::back_inserter(text), "{} ", number);
}
void add(std::string& text, std::string_view bytes) {
  add(text, std::ssize(bytes));
  text += bytes;
}

// As docs/cpp.md says it is made.
std::string header_checksum(const io::SafetensorsFile& file) {
  int64_t begin = INT64_MAX;
  for (const auto& [name, stored] : file.tensors()) begin = std::min(begin, stored.offset);
  std::string text;
  for (const auto& [name, stored] : file.tensors()) {
    add(text, name);
    add(text, *io::safetensors_name(stored.info.dtype));
    for (const int64_t dimension : stored.info.shape) add(text, dimension);
    add(text, -1);
    add(text, stored.offset - begin);
  }
  for (const auto& [key, value] : file.metadata()) {
    if (key == "header_xxh3") continue;
    add(text, key);
    add(text, value);
  }
  return io::checksum_of(text.data(), std::ssize(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(fuzz::as_text(data, size));
  if (const auto at = bytes.find(kNoChecksum); at != std::string::npos) {
    const fuzz::MemoryFile memory(bytes);
    try {
      const auto checksum = header_checksum(io::SafetensorsFile(memory.path()));
      bytes.replace(at + kNoChecksum.size() - 1 - checksum.size(), checksum.size(), checksum);
    } catch (const c10::ValueError&) {
      return 0;
    }
  }
  const fuzz::MemoryFile memory(bytes);
  const auto file = fuzz::parse_within({fuzz::kFixed, 128}, size, [&] {
    return std::make_unique<io::PrepackedFile>(memory.path());
  });
  if (!file) return 0;
  for (const auto& name : (*file)->names()) {
    const auto tensor = (*file)->tensor(name);
    fuzz::require(tensor.sizes() == (*file)->find(name)->shape, "as the header says");
  }
  try {
    (*file)->verify();
  } catch (const c10::ValueError&) {
  }
  return 0;
}
