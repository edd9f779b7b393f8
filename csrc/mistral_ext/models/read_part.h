#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "mistral_ext/io/tensor_source.h"
#include "mistral_ext/parallel/shard_spec.h"

namespace mistral_ext::models {

// A rank's part of a stored tensor, contiguous. On the CPU, in the dtype in which it is stored,
// rows and whole tensors are the source's mapping; everything else is read, and nothing but the
// part.
at::Tensor read_part(const io::TensorSource& source,
                     const std::string& name,
                     const parallel::ShardSpec& shard,
                     at::ScalarType dtype,
                     at::Device device);

}  // namespace mistral_ext::models
