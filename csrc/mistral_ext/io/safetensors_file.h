#pragma once

#include <filesystem>
#include <memory>

#include "mistral_ext/io/file.h"
#include "mistral_ext/io/mapped_file.h"
#include "mistral_ext/io/safetensors_header.h"
#include "mistral_ext/io/tensor_source.h"

namespace mistral_ext::io {

// One safetensors file, memory-mapped. The header is read and checked whole here; see
// read_safetensors_header, which throws for a bad one.
class SafetensorsFile : public TensorSource {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  std::vector<std::string> names() const override;
  const TensorInfo* find(const std::string& name) const override;
  at::Tensor tensor(const std::string& name) const override;
  void read(const std::string& name,
            const at::Tensor& result,
            const std::optional<TensorPart>& part) const override;

  // "load: <path>", what messages about the file's content begin with.
  const std::string& label() const { return file_.label(); }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::map<std::string, StoredTensor>& tensors() const { return header_.tensors; }
  // A tensor's bytes over the mapping.
  const std::byte* bytes(const StoredTensor& stored) const {
    return mapping_->data() + stored.offset;
  }

 protected:
  const std::string& source_label() const override { return file_.label(); }

 private:
  const StoredTensor& at(const std::string& name) const;

  File file_;
  SafetensorsHeader header_;
  std::shared_ptr<MappedFile> mapping_;
};

}  // namespace mistral_ext::io
