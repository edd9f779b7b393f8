#pragma once

#include <map>
#include <string>

#include "mistral_ext/io/file.h"
#include "mistral_ext/io/tensor_source.h"

namespace mistral_ext::io {

struct StoredTensor {
  TensorInfo info;
  int64_t offset;  // of its first byte in the file
  int64_t bytes;
};

struct SafetensorsHeader {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

// Reads the header of a safetensors file and checks all of it: afterwards every tensor lies inside
// the file, has as many bytes as its shape and dtype say, and shares none with another, and no byte
// is left over. Throws ValueError naming the file, the tensor and the field. Takes memory for a
// header of the length that the file has, which may not be above 100 MB.
SafetensorsHeader read_safetensors_header(const File& file);

}  // namespace mistral_ext::io
