#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace mistral_ext::io {

// Tensors by Hugging Face's parameter names.
using StateDict = std::map<std::string, at::Tensor>;

}  // namespace mistral_ext::io
