#pragma once

#include <cstdint>

namespace mistral_ext::kernels {

// The two 16-bit floats, as bits: same layout as torch's, without its headers.
struct bfloat16 {
  uint16_t bits;
};

struct float16 {
  uint16_t bits;
};

}  // namespace mistral_ext::kernels
