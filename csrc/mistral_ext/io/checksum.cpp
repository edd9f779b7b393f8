// The only file that sees xxHash. All of it is static here, so that a program with another version
// of that library keeps its own.
#include "mistral_ext/io/checksum.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace mistral_ext::io {

std::string checksum_of(const void* data, int64_t bytes) {
  return fmt::format("{:016x}", XXH3_64bits(data, static_cast<size_t>(bytes)));
}

}  // namespace mistral_ext::io
