#include "mistral_ext/io/safetensors_file.h"

#include <ATen/ops/from_blob.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/io/read_tensor.h"

namespace mistral_ext::io {
SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), header_(read_safetensors_header(file_)), mapping_(MappedFile::map(file_)) {}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  names.reserve(header_.tensors.size());
  for (const auto& [name, tensor] : header_.tensors) names.push_back(name);
  return names;
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  return found == header_.tensors.end() ? nullptr : &found->second.info;
}

const StoredTensor& SafetensorsFile::at(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  MISTRAL_EXT_CHECK(found != header_.tensors.end(),
                    "{}: {} must be in the file, got none",
                    file_.label(),
                    printable(name));
  return found->second;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto& stored = at(name);
  const auto dtype = stored.info.dtype;
  auto* data = mapping_->data() + stored.offset;
  const auto options = at::TensorOptions().dtype(dtype);
  if (dtype == at::kBool) {
    // A byte that is neither 0 nor 1 is no bool.
    return at::from_blob(data, stored.info.shape, options.dtype(at::kByte)).ne(0);
  }
  // Files by other writers than the format's own may begin a tensor anywhere.
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) != 0) {
    return converted(name, dtype, at::kCPU);
  }
  return at::from_blob(data, stored.info.shape, [mapping = mapping_](void* /*data*/) {}, options);
}

void SafetensorsFile::read(const std::string& name,
                           const at::Tensor& result,
                           const std::optional<TensorPart>& part) const {
  const auto shape = shape_of(name, part);
  MISTRAL_EXT_CHECK(result.sizes() == shape && result.is_contiguous(),
                    "{}: {}: the result must be contiguous of shape {}, got {}",
                    label(),
                    printable(name),
                    c10::str(at::IntArrayRef(shape)),
                    c10::str(result.sizes()));
  read_tensor(file_, at(name), part, result);
}

}  // namespace mistral_ext::io
