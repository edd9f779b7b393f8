#pragma once

#include <algorithm>
#include <cstdint>

namespace mistral_ext::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr int64_t kMostBlocks = INT64_C(1) << 31;  // along x, exclusive
inline constexpr int64_t kMostBlocksAside = 65535;        // along y and z

inline int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Threads for a block that walks over `items`: whole warps, as many as there is work for.
inline unsigned threads_for(int64_t items, int64_t most = 1024) {
  return static_cast<unsigned>(std::clamp<int64_t>(ceil_div(items, kWarp) * kWarp, kWarp, most));
}

inline unsigned blocks_for(int64_t blocks, int64_t most = kMostBlocks - 1) {
  return static_cast<unsigned>(std::min(blocks, most));
}

}  // namespace mistral_ext::kernels::cuda
