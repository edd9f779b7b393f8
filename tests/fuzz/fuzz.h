// What the fuzz targets share. A target hands bytes to one parser and states what must hold
// afterwards: a ValueError or a result that keeps its promises, and memory within a small multiple
// of the input. Whatever else leaves it is a finding: another exception, a signal, what the
// sanitizers see, a requirement that fails, or an input that takes seconds.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

// Called for every input, by libFuzzer or by replay_main.cpp.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace mistral_ext::fuzz {

inline std::string_view as_text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Ends the process with a message where `holds` is false.
void require(bool holds, const char* what);

// A file in memory that has a path. `hole` bytes of zeros, which take no memory, follow the others.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes, int64_t hole = 0);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::filesystem::path path() const;

 private:
  int descriptor_;
};

// The most bytes that operator new held at once since construction, above what it held then.
class PeakMemory {
 public:
  PeakMemory();
  int64_t bytes() const;

 private:
  int64_t before_;
};

// What an input may take: `fixed` bytes and `each` for every byte of it.
struct MemoryLimit {
  int64_t fixed;
  int64_t each;
};
// For messages of errors, and tables that are made once.
inline constexpr int64_t kFixed = 256 << 10;

void require_memory(const PeakMemory& peak, size_t size, MemoryLimit limit);

// What `parse` returns for an input of `size` bytes; nothing where it throws a ValueError.
template <class Parse>
auto parse_within(MemoryLimit limit, size_t size, Parse&& parse)
    -> std::optional<decltype(parse())> {
  const PeakMemory peak;
  std::optional<decltype(parse())> result;
  try {
    result.emplace(parse());
  } catch (const c10::ValueError&) {
    // Files are untrusted: this is what parsers say of them.
    require_memory(peak, size, limit);
    return std::nullopt;
  }
  require_memory(peak, size, limit);
  return result;
}

}  // namespace mistral_ext::fuzz
