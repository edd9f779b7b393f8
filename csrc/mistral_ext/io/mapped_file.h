#pragma once

#include <cstddef>
#include <memory>

#include "mistral_ext/io/file.h"

namespace mistral_ext::io {

// A file's bytes in memory, read from the disk when they are first touched. What is written there
// is this process's own: it reaches neither the file nor other mappings. Shrinking the file in
// place while it is mapped makes a later access fault, which ends the process; replacing it by
// another file under its name, as saving does, is safe.
class MappedFile {
 public:
  // Throws ValueError naming the file where the system maps nothing.
  static std::shared_ptr<MappedFile> map(const File& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  MappedFile(std::byte* data, int64_t size) : data_(data), size_(size) {}

  std::byte* data_;
  int64_t size_;
};

}  // namespace mistral_ext::io
