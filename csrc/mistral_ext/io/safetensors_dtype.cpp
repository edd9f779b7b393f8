#include "mistral_ext/io/safetensors_dtype.h"

#include <algorithm>
#include <array>
#include <utility>

namespace mistral_ext::io {
namespace {

using Entry = std::pair<std::string_view, at::ScalarType>;
constexpr std::array<Entry, 19> kDtypes = {{
    {"BOOL", at::ScalarType::Bool},
    {"U8", at::ScalarType::Byte},
    {"I8", at::ScalarType::Char},
    {"U16", at::ScalarType::UInt16},
    {"I16", at::ScalarType::Short},
    {"U32", at::ScalarType::UInt32},
    {"I32", at::ScalarType::Int},
    {"U64", at::ScalarType::UInt64},
    {"I64", at::ScalarType::Long},
    {"F16", at::ScalarType::Half},
    {"BF16", at::ScalarType::BFloat16},
    {"F32", at::ScalarType::Float},
    {"F64", at::ScalarType::Double},
    {"C64", at::ScalarType::ComplexFloat},
    {"F8_E4M3", at::ScalarType::Float8_e4m3fn},
    {"F8_E5M2", at::ScalarType::Float8_e5m2},
    {"F8_E8M0", at::ScalarType::Float8_e8m0fnu},
    {"F8_E4M3FNUZ", at::ScalarType::Float8_e4m3fnuz},
    {"F8_E5M2FNUZ", at::ScalarType::Float8_e5m2fnuz},
}};

}  // namespace

std::optional<at::ScalarType> dtype_of_safetensors(std::string_view name) {
  const auto* found = std::find_if(
      kDtypes.begin(), kDtypes.end(), [&](const Entry& entry) { return entry.first == name; });
  if (found == kDtypes.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string_view> safetensors_name(at::ScalarType dtype) {
  const auto* found = std::find_if(
      kDtypes.begin(), kDtypes.end(), [&](const Entry& entry) { return entry.second == dtype; });
  if (found == kDtypes.end()) return std::nullopt;
  return found->first;
}

}  // namespace mistral_ext::io
