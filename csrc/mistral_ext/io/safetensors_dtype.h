#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <string_view>

namespace mistral_ext::io {

// The dtypes of the safetensors format, by its names for them (F32, BF16, F8_E4M3); those of less
// than a byte, which torch has no dtype for, are not among them.
std::optional<at::ScalarType> dtype_of_safetensors(std::string_view name);
std::optional<std::string_view> safetensors_name(at::ScalarType dtype);

}  // namespace mistral_ext::io
