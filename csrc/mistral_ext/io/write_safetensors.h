#pragma once

#include <map>
#include <string>

#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/state_dict.h"

namespace mistral_ext::io {

// Writes the tensors as a safetensors file, tensor by tensor: of those that are on another device
// or not contiguous, one at a time is copied. Throws ValueError naming the file and the tensor for
// a dtype that the format lacks and for a tensor without storage. Leaves finish and commit to the
// caller.
void write_safetensors(AtomicFile& file,
                       const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace mistral_ext::io
