#include "mistral_ext/models/read_part.h"

#include <optional>

namespace mistral_ext::models {

at::Tensor read_part(const io::TensorSource& source,
                     const std::string& name,
                     const parallel::ShardSpec& shard,
                     at::ScalarType dtype,
                     at::Device device) {
  std::optional<io::TensorPart> part;
  if (!shard.is_whole()) {
    const int64_t length = source.shape_of(name).at(shard.dim) / shard.count;
    part = {.dim = shard.dim, .start = shard.index * length, .length = length};
  }
  const bool is_mapped = device.is_cpu() && source.find(name)->dtype == dtype;
  if (is_mapped && !part) return source.tensor(name);
  if (is_mapped && part->dim == 0) return source.slice(name, *part);
  return source.converted(name, dtype, device, part);
}

}  // namespace mistral_ext::models
