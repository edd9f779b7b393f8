#include "mistral_ext/io/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>

#include "mistral_ext/core/check.h"

namespace mistral_ext::io {

std::shared_ptr<MappedFile> MappedFile::map(const File& file) {
  if (file.size() == 0) return std::shared_ptr<MappedFile>(new MappedFile(nullptr, 0));
  // Writable, for updates in place; and without a reservation for pages that are never written, or
  // a file larger than the free memory could not be mapped.
  void* data = ::mmap(nullptr,
                      static_cast<size_t>(file.size()),
                      PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_NORESERVE,
                      file.descriptor(),
                      0);
  MISTRAL_EXT_CHECK(data != MAP_FAILED,
                    "{}: must be a file that can be mapped, got \"{}\"",
                    file.label(),
                    system_message(errno));
  return std::shared_ptr<MappedFile>(new MappedFile(static_cast<std::byte*>(data), file.size()));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(size_));
}

}  // namespace mistral_ext::io
