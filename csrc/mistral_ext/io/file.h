#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mistral_ext::io {

// A regular file, open for reading. Links are followed, as caches of downloaded models are made of
// them. Every error is a ValueError that names the file.
class File {
 public:
  explicit File(const std::filesystem::path& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int64_t size() const { return size_; }
  int descriptor() const { return descriptor_; }
  // "load: <path>", what messages about the file's content begin with.
  const std::string& label() const { return label_; }

  // Fills `bytes` bytes at `destination` with those from `offset` on. ValueError where the file
  // ends before.
  void read(int64_t offset, void* destination, int64_t bytes) const;

  // The whole content. ValueError where the file is longer than `most` bytes.
  std::string read_all(int64_t most) const;

 private:
  std::string label_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

// Whether there is something of that name, be it a link that leads nowhere: opening it says so.
bool is_there(const std::filesystem::path& path);

// The system's words for an errno.
std::string system_message(int error);

}  // namespace mistral_ext::io
