#include <climits>

#include "mistral_ext/kernels/cuda/flash_attention.h"
#include "mistral_ext/kernels/cuda/launch.h"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// A warp a word.
__global__ void visible_keys_kernel(const uint8_t* mask,
                                    int64_t row_stride,
                                    int64_t stride,
                                    int64_t words_of_row,
                                    int64_t words,
                                    int key_len,
                                    uint32_t* visible) {
  const int lane = threadIdx.x % kWarp;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; i < words;
       i += step) {
    const int64_t row = i / words_of_row;
    const int64_t key = i % words_of_row * 32 + lane;
    const bool sees = key < key_len && mask[row * row_stride + key * stride] != 0;
    const unsigned word = __ballot_sync(~0u, sees);
    if (lane == 0) visible[i] = word;
  }
}

// A warp a tile.
__global__ void sequence_ranges_kernel(
    const int64_t* ids, int64_t tiles_of_row, int64_t tiles, int key_len, int64_t* ranges) {
  const int lane = threadIdx.x % kWarp;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; i < tiles;
       i += step) {
    const int64_t row = i / tiles_of_row;
    const int64_t begin = i % tiles_of_row * kFlashKeys;
    int64_t least = LLONG_MAX;
    int64_t greatest = LLONG_MIN;
    for (int64_t key = begin + lane; key < min(begin + kFlashKeys, static_cast<int64_t>(key_len));
         key += kWarp) {
      const int64_t id = ids[row * key_len + key];
      least = min(least, id);
      greatest = max(greatest, id);
    }
    for (int other = kWarp / 2; other > 0; other /= 2) {
      least = min(least, static_cast<int64_t>(__shfl_xor_sync(~0u, least, other)));
      greatest = max(greatest, static_cast<int64_t>(__shfl_xor_sync(~0u, greatest, other)));
    }
    if (lane == 0) {
      ranges[2 * i] = least;
      ranges[2 * i + 1] = greatest;
    }
  }
}

}  // namespace

cudaError_t plan_visible_keys(const uint8_t* mask,
                              int64_t row_stride,
                              int64_t stride,
                              int rows,
                              int key_len,
                              uint32_t* visible,
                              cudaStream_t stream) {
  const int64_t words = rows * visible_words(key_len);
  if (words == 0) return cudaSuccess;
  visible_keys_kernel<<<blocks_for(ceil_div(words, kWarps)), kThreads, 0, stream>>>(
      mask, row_stride, stride, visible_words(key_len), words, key_len, visible);
  return cudaGetLastError();
}

cudaError_t plan_sequence_ranges(
    const int64_t* ids, int rows, int key_len, int64_t* ranges, cudaStream_t stream) {
  const int64_t tiles = rows * flash_tiles(key_len);
  if (tiles == 0) return cudaSuccess;
  sequence_ranges_kernel<<<blocks_for(ceil_div(tiles, kWarps)), kThreads, 0, stream>>>(
      ids, flash_tiles(key_len), tiles, key_len, ranges);
  return cudaGetLastError();
}

}  // namespace mistral_ext::kernels::cuda
