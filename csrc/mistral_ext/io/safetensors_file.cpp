#include "mistral_ext/io/safetensors_file.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {
namespace {

// What is in memory at once of a tensor that is converted: fits the caches.
constexpr int64_t kPieceBytes = int64_t{1} << 20;

}  // namespace

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

at::Tensor SafetensorsFile::converted(const std::string& name,
                                      at::ScalarType dtype,
                                      at::Device device) const {
  const auto& stored = at(name);
  auto result = at::empty(stored.info.shape, at::TensorOptions().dtype(dtype).device(device));
  if (stored.info.dtype == dtype && device.is_cpu() && dtype != at::kBool) {
    file_.read(stored.offset, result.data_ptr(), stored.bytes);
    return result;
  }
  // Through a piece that is used again, and not the mapping, whose pages would stay in memory.
  const auto stored_dtype = stored.info.dtype == at::kBool ? at::kByte : stored.info.dtype;
  const auto element = static_cast<int64_t>(c10::elementSize(stored_dtype));
  const auto flat = result.view(-1);
  // Not an at::empty: glibc does not use aligned memory again, so that every tensor would leave a
  // hole of a piece's size.
  const int64_t piece_numel = std::min(kPieceBytes / element, flat.numel());
  std::vector<std::max_align_t> memory(piece_numel * element / sizeof(std::max_align_t) + 1);
  const auto piece =
      at::from_blob(memory.data(), {piece_numel}, at::TensorOptions().dtype(stored_dtype));
  for (int64_t begin = 0; begin < flat.numel(); begin += piece.numel()) {
    const int64_t count = std::min(piece.numel(), flat.numel() - begin);
    const auto part = piece.narrow(0, 0, count);
    file_.read(stored.offset + begin * element, part.data_ptr(), count * element);
    flat.narrow(0, begin, count).copy_(stored.info.dtype == at::kBool ? part.ne(0) : part);
  }
  return result;
}

}  // namespace mistral_ext::io
