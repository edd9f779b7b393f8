#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace mistral_ext::kernels::cpu {

// n zeros that end where the forbidden page begins.
template <typename T>
class GuardedArray {
 public:
  explicit GuardedArray(int64_t n) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
    const int64_t usable = (bytes + page - 1) / page * page;
    mapped_ = usable + page;
    base_ = static_cast<char*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_NE(static_cast<void*>(base_), MAP_FAILED);
    EXPECT_EQ(mprotect(base_ + usable, page, PROT_NONE), 0);
    data_ = reinterpret_cast<T*>(base_ + usable - bytes);
  }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;
  ~GuardedArray() { munmap(base_, mapped_); }

  T* get() { return data_; }

 private:
  char* base_;
  int64_t mapped_;
  T* data_;
};

}  // namespace mistral_ext::kernels::cpu
