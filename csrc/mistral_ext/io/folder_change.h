#pragma once

#include <filesystem>
#include <vector>

#include "mistral_ext/io/atomic_file.h"

namespace mistral_ext::io {

// Files that get their names and old ones that go, all or none: where `keep` is not reached, the
// folder has again what it had. Until then the old files are there under temporary names. Errors
// are ValueErrors that name the file.
class FolderChange {
 public:
  FolderChange() = default;
  ~FolderChange();
  FolderChange(const FolderChange&) = delete;
  FolderChange& operator=(const FolderChange&) = delete;

  // Gives a finished file its name, in the place of what had it.
  void put(AtomicFile& file);
  // Takes away a file, or a link to one, where it is there.
  void remove(const std::filesystem::path& path);
  // The old files go for good.
  void keep();

 private:
  struct Step {
    std::filesystem::path path;
    std::filesystem::path old;  // empty where there was none
  };
  std::vector<Step> steps_;
};

}  // namespace mistral_ext::io
