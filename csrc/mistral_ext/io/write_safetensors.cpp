#include "mistral_ext/io/write_safetensors.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/io/safetensors_dtype.h"

namespace mistral_ext::io {
namespace {

// The header's length is a multiple of this, as the format's own writers make it.
constexpr int64_t kAlignment = 8;

// Wide elements first: each then lies where its dtype belongs.
NamedTensors in_file_order(const StateDict& tensors) {
  NamedTensors ordered(tensors.begin(), tensors.end());
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });
  return ordered;
}

ConfigList to_list(at::IntArrayRef values) {
  ConfigList list;
  // Not push_back, of which GCC 12 warns falsely.
  for (const int64_t value : values) list.emplace_back().value = value;
  return list;
}

}  // namespace

void check_writable(const AtomicFile& file, const std::string& name, const at::Tensor& tensor) {
  MISTRAL_EXT_CHECK(tensor.defined() && !tensor.is_meta() && tensor.layout() == at::kStrided,
                    "{}: {} must be a tensor with storage, got none",
                    file.label(),
                    printable(name));
  MISTRAL_EXT_CHECK(safetensors_name(tensor.scalar_type()).has_value(),
                    "{}: {} must have a dtype of the safetensors format, got {}",
                    file.label(),
                    printable(name),
                    c10::toString(tensor.scalar_type()));
}

at::Tensor in_one_piece(const at::Tensor& tensor) {
  return tensor.detach().to(at::kCPU).contiguous();
}

void write_safetensors(AtomicFile& file,
                       const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  for (const auto& [name, tensor] : tensors) check_writable(file, name, tensor);
  write_safetensors(file, in_file_order(tensors), metadata, kAlignment);
}

void write_safetensors(AtomicFile& file,
                       const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata,
                       int64_t alignment) {
  for (const auto& [name, tensor] : tensors) check_writable(file, name, tensor);
  ConfigMap header;
  int64_t end = 0;
  for (const auto& [name, tensor] : tensors) {
    const int64_t begin = end;
    end += static_cast<int64_t>(tensor.nbytes());
    header[name] = {ConfigMap{{"dtype", {std::string(*safetensors_name(tensor.scalar_type()))}},
                              {"shape", {to_list(tensor.sizes())}},
                              {"data_offsets", {to_list({begin, end})}}}};
  }
  if (!metadata.empty()) {
    ConfigMap map;
    for (const auto& [key, value] : metadata) map[key] = {value};
    header["__metadata__"] = {std::move(map)};
  }
  auto text = to_json(header, file.label(), /*indented=*/false);
  constexpr int64_t kLengthBytes = 8;
  const int64_t over = (kLengthBytes + std::ssize(text)) % alignment;
  text.append((alignment - over) % alignment, ' ');
  std::array<uint8_t, kLengthBytes> length{};
  for (int i = 0; i < kLengthBytes; ++i) length[i] = static_cast<uint8_t>(text.size() >> (8 * i));
  file.write(length.data(), length.size());
  file.write(text.data(), std::ssize(text));
  for (const auto& [name, tensor] : tensors) {
    const auto piece = in_one_piece(tensor);
    file.write(piece.const_data_ptr(), static_cast<int64_t>(piece.nbytes()));
  }
}

}  // namespace mistral_ext::io
