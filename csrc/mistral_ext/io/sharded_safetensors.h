#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "mistral_ext/io/safetensors_file.h"

namespace mistral_ext::io {

// A checkpoint in several safetensors files beside an index, <name>.safetensors.index.json, that
// says which tensor is in which. Every file is opened and its header checked here. The index is
// untrusted: a file is a plain name in the index's own folder. Throws ValueError naming the file
// and the tensor.
class ShardedSafetensors : public TensorSource {
 public:
  explicit ShardedSafetensors(const std::filesystem::path& index);

  std::vector<std::string> names() const override;
  const TensorInfo* find(const std::string& name) const override;
  const std::string& label_of(const std::string& name) const override;
  at::Tensor tensor(const std::string& name) const override;
  void read(const std::string& name,
            const at::Tensor& result,
            const std::optional<TensorPart>& part) const override;

 protected:
  const std::string& source_label() const override { return label_; }

 private:
  const SafetensorsFile& shard_of(const std::string& name) const;

  std::string label_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> shards_;  // by file name
  std::map<std::string, const SafetensorsFile*> shard_of_;          // by the tensor's name
};

}  // namespace mistral_ext::io
