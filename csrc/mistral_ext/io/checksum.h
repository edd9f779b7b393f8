#pragma once

#include <cstdint>
#include <string>

namespace mistral_ext::io {

// XXH3's 64 bits of some bytes, as 16 hexadecimal digits. It finds damage, not malice.
std::string checksum_of(const void* data, int64_t bytes);

}  // namespace mistral_ext::io
