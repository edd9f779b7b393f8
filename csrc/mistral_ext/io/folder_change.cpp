#include "mistral_ext/io/folder_change.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {

FolderChange::~FolderChange() {
  std::for_each(steps_.rbegin(), steps_.rend(), [](const Step& step) {
    if (step.old.empty()) {
      ::unlink(step.path.c_str());
    } else {
      ::rename(step.old.c_str(), step.path.c_str());
    }
  });
}

void FolderChange::put(AtomicFile& file) {
  auto& step = steps_.emplace_back();
  try {
    step = {file.path(), file.replace()};
  } catch (...) {
    steps_.pop_back();
    throw;
  }
}

void FolderChange::remove(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(path, error);
  if (!std::filesystem::exists(status)) return;
  Step step = {path, temporary_name(path)};
  steps_.reserve(steps_.size() + 1);
  const bool is_folder = std::filesystem::is_directory(status);
  const bool moved = !is_folder && ::rename(path.c_str(), step.old.c_str()) == 0;
  MISTRAL_EXT_CHECK(moved,
                    "save: {}: must be a file that can be removed, got \"{}\"",
                    printable(path.native()),
                    system_message(is_folder ? EISDIR : errno));
  steps_.push_back(std::move(step));
}

void FolderChange::keep() {
  for (const auto& step : steps_) {
    if (!step.old.empty()) ::unlink(step.old.c_str());
  }
  steps_.clear();
}

}  // namespace mistral_ext::io
