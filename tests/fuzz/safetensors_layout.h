#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "fuzz.h"
#include "mistral_ext/io/safetensors_header.h"

namespace mistral_ext::fuzz {

// What read_safetensors_header promises, computed another way.
inline void require_layout(const io::SafetensorsHeader& header, int64_t begin, int64_t end) {
  std::vector<std::pair<int64_t, int64_t>> spans;
  for (const auto& [name, tensor] : header.tensors) {
    auto bytes = static_cast<__int128>(c10::elementSize(tensor.info.dtype));
    for (const int64_t dimension : tensor.info.shape) {
      require(dimension >= 0, "a dimension must not be negative");
      bytes *= dimension;
    }
    require(bytes == tensor.bytes, "a tensor must have the bytes that its shape says");
    spans.emplace_back(tensor.offset, tensor.offset + tensor.bytes);
  }
  std::sort(spans.begin(), spans.end());
  for (const auto& [first, last] : spans) {
    require(first == begin, "a tensor must begin where the one before ends");
    begin = last;
  }
  require(begin == end, "the tensors must fill the file");
}

}  // namespace mistral_ext::fuzz
