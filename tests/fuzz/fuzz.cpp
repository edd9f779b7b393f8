#include "fuzz.h"

#include <c10/util/Logging.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> held = 0;
std::atomic<int64_t> most_held = 0;

void* allocate(size_t bytes) noexcept {
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) return nullptr;
  const int64_t now = held += static_cast<int64_t>(::malloc_usable_size(memory));
  if (now > most_held) most_held = now;
  return memory;
}

void* allocate_or_throw(size_t bytes) {
  void* memory = allocate(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void release(void* memory) {
  if (memory == nullptr) return;
  held -= static_cast<int64_t>(::malloc_usable_size(memory));
  std::free(memory);
}

// Errors are most of what a parser under test does; each would walk the stack.
const bool kWithoutBacktraces = [] {
  c10::SetStackTraceFetcher([] { return std::string(); });
  return true;
}();

}  // namespace

void* operator new(size_t bytes) { return allocate_or_throw(bytes); }
void* operator new[](size_t bytes) { return allocate_or_throw(bytes); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t /*bytes*/) noexcept { release(memory); }
void operator delete[](void* memory, size_t /*bytes*/) noexcept { release(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { release(memory); }

namespace mistral_ext::fuzz {

void require(bool holds, const char* what) {
  if (holds) return;
  fmt::print(stderr, "fuzz: {}\n", what);
  std::abort();
}

MemoryFile::MemoryFile(std::string_view bytes, int64_t hole)
    : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
  require(descriptor_ >= 0, "no file in memory could be made");
  const auto written = ::pwrite(descriptor_, bytes.data(), bytes.size(), 0);
  require(written == static_cast<ssize_t>(bytes.size()), "a file in memory could not be written");
  const auto size = static_cast<int64_t>(bytes.size()) + hole;
  require(::ftruncate(descriptor_, size) == 0, "a file in memory could not be given a hole");
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

std::filesystem::path MemoryFile::path() const {
  return fmt::format("/proc/self/fd/{}", descriptor_);
}

PeakMemory::PeakMemory() : before_(held) { most_held = before_; }

int64_t PeakMemory::bytes() const { return most_held - before_; }

void require_memory(const PeakMemory& peak, size_t size, MemoryLimit limit) {
  const int64_t most = limit.fixed + limit.each * static_cast<int64_t>(size);
  if (peak.bytes() <= most) return;
  fmt::print(stderr, "fuzz: took {} bytes for {} of input\n", peak.bytes(), size);
  std::abort();
}

}  // namespace mistral_ext::fuzz
