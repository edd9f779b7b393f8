// The header of a safetensors file. The first three bytes of the input are the length of the
// tensors' bytes, which are not there: all others are the header's text.
#include "mistral_ext/io/safetensors_header.h"
#include "safetensors_layout.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const int64_t hole = data[0] | data[1] << 8 | data[2] << 16;
  const auto text = fuzz::as_text(data + 3, size - 3);
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(text.size() >> (8 * i));
  const auto begin = static_cast<int64_t>(8 + text.size());
  const fuzz::MemoryFile memory(bytes.append(text), hole);
  const io::File file(memory.path());
  const auto header = fuzz::parse_within(
      {fuzz::kFixed, 64}, size, [&] { return io::read_safetensors_header(file); });
  if (header) fuzz::require_layout(*header, begin, begin + hole);
  return 0;
}
