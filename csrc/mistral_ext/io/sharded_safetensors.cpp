#include "mistral_ext/io/sharded_safetensors.h"

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/checkpoint_index.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {

ShardedSafetensors::ShardedSafetensors(const std::filesystem::path& index)
    : label_("load: " + printable(index.native())) {
  for (const auto& [name, file] : read_checkpoint_index(index)) {
    auto& shard = shards_[file];
    if (shard == nullptr) {
      shard = std::make_unique<SafetensorsFile>(index.parent_path() / file);
    }
    MISTRAL_EXT_CHECK(shard->find(name) != nullptr,
                      "{}: weight_map: {} must be in {}, which has no such tensor",
                      label_,
                      printable(name),
                      printable(file));
    shard_of_.emplace(name, shard.get());
  }
}

std::vector<std::string> ShardedSafetensors::names() const {
  std::vector<std::string> names;
  names.reserve(shard_of_.size());
  for (const auto& [name, shard] : shard_of_) names.push_back(name);
  return names;
}

const TensorInfo* ShardedSafetensors::find(const std::string& name) const {
  const auto found = shard_of_.find(name);
  return found == shard_of_.end() ? nullptr : found->second->find(name);
}

const std::string& ShardedSafetensors::label_of(const std::string& name) const {
  const auto found = shard_of_.find(name);
  return found == shard_of_.end() ? label_ : found->second->label();
}

const SafetensorsFile& ShardedSafetensors::shard_of(const std::string& name) const {
  const auto found = shard_of_.find(name);
  MISTRAL_EXT_CHECK(found != shard_of_.end(),
                    "{}: {} must be in the weight_map, got none",
                    label_,
                    printable(name));
  return *found->second;
}

at::Tensor ShardedSafetensors::tensor(const std::string& name) const {
  return shard_of(name).tensor(name);
}

void ShardedSafetensors::read(const std::string& name,
                              const at::Tensor& result,
                              const std::optional<TensorPart>& part) const {
  shard_of(name).read(name, result, part);
}

}  // namespace mistral_ext::io
