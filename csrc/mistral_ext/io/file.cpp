#include "mistral_ext/io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::io {

std::string system_message(int error) { return std::generic_category().message(error); }

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

File::File(const std::filesystem::path& path)
    : label_("load: " + printable(path.native())),
      // Without O_NONBLOCK, opening a pipe would wait for its writer.
      descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  MISTRAL_EXT_CHECK(
      descriptor_ >= 0, "{}: must be a readable file, got \"{}\"", label_, system_message(errno));
  struct stat status{};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    MISTRAL_EXT_CHECK(false,
                      "{}: must be a regular file, got {}",
                      label_,
                      known && S_ISDIR(status.st_mode) ? "a folder" : "something else");
  }
  size_ = status.st_size;
}

File::~File() { ::close(descriptor_); }

void File::read(int64_t offset, void* destination, int64_t bytes) const {
  auto* at = static_cast<char*>(destination);
  while (bytes > 0) {
    // Linux reads no more than this in one call.
    const auto part = std::min<int64_t>(bytes, 0x7ffff000);
    const auto got = ::pread(descriptor_, at, static_cast<size_t>(part), offset);
    if (got < 0 && errno == EINTR) continue;
    MISTRAL_EXT_CHECK(
        got >= 0, "{}: must be a readable file, got \"{}\"", label_, system_message(errno));
    MISTRAL_EXT_CHECK(got > 0, "{}: must have {} bytes, and ends at {}", label_, size_, offset);
    at += got;
    offset += got;
    bytes -= got;
  }
}

std::string File::read_all(int64_t most) const {
  MISTRAL_EXT_CHECK(size_ <= most, "{}: must have at most {} bytes, got {}", label_, most, size_);
  std::string content(static_cast<size_t>(size_), '\0');
  read(0, content.data(), size_);
  return content;
}

}  // namespace mistral_ext::io
