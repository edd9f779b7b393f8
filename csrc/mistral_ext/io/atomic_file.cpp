#include "mistral_ext/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <random>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {

namespace fs = std::filesystem;

namespace {

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

bool is_own(const fs::path& path) {
  struct stat status{};
  return ::lstat(path.c_str(), &status) == 0 && status.st_uid == ::geteuid();
}

}  // namespace

fs::path temporary_name(const fs::path& path) {
  std::random_device random;
  fs::path name;
  std::error_code error;
  do {
    name = path.parent_path() / fmt::format(".{}.{:08x}.tmp", path.filename().string(), random());
  } while (fs::exists(fs::symlink_status(name, error)));
  return name;
}

AtomicFile::AtomicFile(const fs::path& path)
    : path_(path), label_("save: " + printable(path.native())) {
  if (is_folder(path)) fail(EISDIR);
  do {
    temporary_ = temporary_name(path);
    // Not mkstemp, whose files nobody else may read.
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) {
    temporary_.clear();
    fail(errno);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(int error) const {
  MISTRAL_EXT_CHECK(
      false, "{}: must be a file that can be written, got \"{}\"", label_, system_message(error));
  throw std::logic_error("unreachable");
}

void AtomicFile::write(const void* data, int64_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    // Linux writes no more than this in one call.
    const auto part = std::min<int64_t>(bytes, 0x7ffff000);
    const auto written = ::write(descriptor_, at, static_cast<size_t>(part));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(errno);
    at += written;
    bytes -= written;
  }
}

void AtomicFile::finish() {
  if (::fsync(descriptor_) != 0) fail(errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) fail(errno);
}

void AtomicFile::commit() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  temporary_.clear();
}

fs::path AtomicFile::replace() {
  std::error_code error;
  const auto status = fs::symlink_status(path_, error);
  if (fs::is_directory(status)) fail(EISDIR);
  if (!fs::exists(status)) {
    commit();
    return {};
  }
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
    return std::exchange(temporary_, {});
  }
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) fail(errno);
  // A file system that exchanges no names. A second link leaves the file where it is; but in a
  // folder such as /tmp one to another user's file could not be removed again.
  const auto old = temporary_name(path_);
  const bool is_linked = is_own(path_) && ::link(path_.c_str(), old.c_str()) == 0;
  if (!is_linked && ::rename(path_.c_str(), old.c_str()) != 0) fail(errno);
  try {
    commit();
  } catch (...) {
    ::rename(old.c_str(), path_.c_str());
    ::unlink(old.c_str());  // two links to one file stay as they are
    throw;
  }
  return old;
}

void sync_folder(const fs::path& folder) {
  const auto name = folder.empty() ? fs::path(".") : folder;
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  MISTRAL_EXT_CHECK(error != EIO && error != ENOSPC && error != EDQUOT,
                    "save: {}: must be a folder that reaches the disk, got \"{}\"",
                    printable(name.native()),
                    system_message(error));
}

}  // namespace mistral_ext::io
