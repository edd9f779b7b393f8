#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/state_dict.h"

namespace mistral_ext::io {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes the tensors as a safetensors file, tensor by tensor: of those that are on another device
// or not contiguous, one at a time is copied. Throws ValueError naming the file and the tensor for
// a dtype that the format lacks and for a tensor without storage. Leaves finish and commit to the
// caller.
void write_safetensors(AtomicFile& file,
                       const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The same in the order given, the first tensor beginning at a multiple of `alignment` bytes.
void write_safetensors(AtomicFile& file,
                       const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata,
                       int64_t alignment);

// What both check first. Throws ValueError naming the file and the tensor.
void check_writable(const AtomicFile& file, const std::string& name, const at::Tensor& tensor);

// A tensor's elements in one piece on the CPU: itself where it is so already.
at::Tensor in_one_piece(const at::Tensor& tensor);

}  // namespace mistral_ext::io
