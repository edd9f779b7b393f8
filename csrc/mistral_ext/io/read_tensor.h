#pragma once

#include <ATen/core/Tensor.h>

#include "mistral_ext/io/file.h"
#include "mistral_ext/io/safetensors_header.h"

namespace mistral_ext::io {

// Fills `result`, contiguous, with a stored tensor or with a part of it, converted to its dtype and
// brought to its device. Reads no other bytes of the file. On the CPU torch's threads share the
// work, each with a buffer of 256 KiB; for another device they travel as they are stored, 16 MiB at
// once, and are converted there. Throws ValueError where the file has become shorter.
void read_tensor(const File& file,
                 const StoredTensor& stored,
                 const std::optional<TensorPart>& part,
                 const at::Tensor& result);

}  // namespace mistral_ext::io
