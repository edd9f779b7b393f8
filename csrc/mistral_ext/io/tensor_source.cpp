#include "mistral_ext/io/tensor_source.h"

#include <ATen/ops/empty.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {

std::vector<int64_t> TensorSource::shape_of(const std::string& name,
                                            const std::optional<TensorPart>& part) const {
  const auto* info = find(name);
  MISTRAL_EXT_CHECK(
      info != nullptr, "{}: {} must be there, got none", source_label(), printable(name));
  auto shape = info->shape;
  if (!part) return shape;
  const auto [dim, start, length] = *part;
  MISTRAL_EXT_CHECK(dim >= 0 && dim < std::ssize(shape),
                    "{}: {}: a part's dim must be in [0, {}), got {}",
                    source_label(),
                    printable(name),
                    shape.size(),
                    dim);
  // Not start + length, which may be beyond int64.
  MISTRAL_EXT_CHECK(
      start >= 0 && length >= 0 && start <= shape[dim] && length <= shape[dim] - start,
      "{}: {}: a part must lie in the {} entries of dimension {}, got {} from {} on",
      source_label(),
      printable(name),
      shape[dim],
      dim,
      length,
      start);
  shape[dim] = length;
  return shape;
}

at::Tensor TensorSource::slice(const std::string& name, const TensorPart& part) const {
  shape_of(name, part);
  return tensor(name).narrow(part.dim, part.start, part.length);
}

at::Tensor TensorSource::converted(const std::string& name,
                                   at::ScalarType dtype,
                                   at::Device device,
                                   const std::optional<TensorPart>& part) const {
  const auto result =
      at::empty(shape_of(name, part), at::TensorOptions().dtype(dtype).device(device));
  read(name, result, part);
  return result;
}

}  // namespace mistral_ext::io
