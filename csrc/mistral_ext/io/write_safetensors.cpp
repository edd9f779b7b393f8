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

using Entry = StateDict::value_type;

// Wide elements first: each then lies where its dtype belongs.
std::vector<const Entry*> in_file_order(const StateDict& tensors) {
  std::vector<const Entry*> entries;
  for (const auto& entry : tensors) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) {
    const auto a_bytes = a->second.element_size();
    const auto b_bytes = b->second.element_size();
    return a_bytes != b_bytes ? a_bytes > b_bytes : a->first < b->first;
  });
  return entries;
}

void check(const AtomicFile& file, const std::string& name, const at::Tensor& tensor) {
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

ConfigList to_list(at::IntArrayRef values) {
  ConfigList list;
  // Not push_back, of which GCC 12 warns falsely.
  for (const int64_t value : values) list.emplace_back().value = value;
  return list;
}

}  // namespace

void write_safetensors(AtomicFile& file,
                       const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  for (const auto& [name, tensor] : tensors) check(file, name, tensor);
  const auto entries = in_file_order(tensors);
  ConfigMap header;
  int64_t end = 0;
  for (const auto* entry : entries) {
    const auto& tensor = entry->second;
    const int64_t begin = end;
    end += static_cast<int64_t>(tensor.nbytes());
    header[entry->first] = {
        ConfigMap{{"dtype", {std::string(*safetensors_name(tensor.scalar_type()))}},
                  {"shape", {to_list(tensor.sizes())}},
                  {"data_offsets", {to_list({begin, end})}}}};
  }
  if (!metadata.empty()) {
    ConfigMap map;
    for (const auto& [key, value] : metadata) map[key] = {value};
    header["__metadata__"] = {std::move(map)};
  }
  auto text = to_json(header, file.label(), /*indented=*/false);
  text.append((8 - text.size() % 8) % 8, ' ');
  std::array<uint8_t, 8> length{};
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(text.size() >> (8 * i));
  file.write(length.data(), length.size());
  file.write(text.data(), std::ssize(text));
  for (const auto* entry : entries) {
    const auto tensor = entry->second.detach().to(at::kCPU).contiguous();
    file.write(tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  }
}

}  // namespace mistral_ext::io
