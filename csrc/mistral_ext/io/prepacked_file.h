#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/write_safetensors.h"

namespace mistral_ext::io {

// A model's weights laid out for use, in one safetensors file that says all that is needed to run
// them: docs/cpp.md describes the format. Every tensor begins at a multiple of 64 bytes, large ones
// at a page, so that a mapping of the file is what the model runs on.
//
// Opening one reads and checks the header with its checksum, and no tensor. Throws ValueError
// naming the file and the field, for another version of the format too.
class PrepackedFile : public TensorSource {
 public:
  explicit PrepackedFile(const std::filesystem::path& path);

  // "load: <path>", what messages about the file's content begin with.
  const std::string& label() const { return file_.label(); }
  // The model's configuration, as text and read.
  const std::string& config_text() const;
  const ConfigMap& config() const { return config_; }

  std::vector<std::string> names() const override { return names_; }
  const TensorInfo* find(const std::string& name) const override { return file_.find(name); }
  at::Tensor tensor(const std::string& name) const override { return file_.tensor(name); }
  void read(const std::string& name,
            const at::Tensor& result,
            const std::optional<TensorPart>& part) const override {
    file_.read(name, result, part);
  }

  // Of the header, and so of the tensors' checksums, too: two files that have the same are the
  // same.
  const std::string& header_checksum() const;

  // Reads every tensor and compares its checksum. Throws ValueError naming one that differs.
  void verify() const;

 protected:
  const std::string& source_label() const override { return file_.label(); }

 private:
  const std::string& field(const std::string& name) const;
  void check_field(const std::string& name, std::string_view value) const;
  void check_version() const;
  void check_header() const;

  SafetensorsFile file_;
  std::vector<std::string> names_;
  ConfigMap config_;
};

// Writes such a file. tensors: in the order in which the model uses them, which their bytes then
// have as far as alignment allows. Leaves finish and commit to the caller.
void write_prepacked(AtomicFile& file, const ConfigMap& config, const NamedTensors& tensors);

}  // namespace mistral_ext::io
