#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mistral_ext::io {

// A file that appears under its name whole or not at all. It is written under a temporary name in
// the same folder; commit puts it in the place of what was there. Where commit is not reached, the
// temporary file is removed and the old one is as it was. Errors are ValueErrors that name the
// file, a folder in its place too.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // "save: <path>", what messages begin with.
  const std::string& label() const { return label_; }
  const std::filesystem::path& path() const { return path_; }

  void write(const void* data, int64_t bytes);
  // Brings what was written to the disk, so that a full one is noticed here.
  void finish();
  // Gives the file its name. After finish. sync_folder makes that last.
  void commit();
  // The same, and what was there stays, under the temporary name that is returned: the caller's to
  // put back or to remove. Empty where nothing was there.
  std::filesystem::path replace();

 private:
  [[noreturn]] void fail(int error) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::string label_;
  int descriptor_ = -1;
};

// A name beside `path` that no file has: .<name>.<random>.tmp
std::filesystem::path temporary_name(const std::filesystem::path& path);

// Brings to the disk which files a folder has, after some got their names or were removed: until
// then a machine that loses its power may have the old ones again. Does nothing where the system
// does not do that for folders, or lets this user not open it. Throws ValueError naming the folder
// where the disk fails.
void sync_folder(const std::filesystem::path& folder);

}  // namespace mistral_ext::io
