#pragma once

#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <vector>

#include "io/temporary_folder.h"
#include "mistral_ext/parallel/shared_memory_backend.h"

namespace mistral_ext::parallel {

using Backend = c10::intrusive_ptr<SharedMemoryBackend>;
using Store = c10::intrusive_ptr<c10d::Store>;

// For a machine that is busy: what waits this long is an error, and never a wait of a test that
// passes.
inline constexpr std::chrono::milliseconds kLong{60'000};

inline Backend make_backend(const Store& store,
                            int rank,
                            int size,
                            std::chrono::milliseconds timeout = kLong) {
  return c10::make_intrusive<SharedMemoryBackend>(store, rank, size, timeout, "tp");
}

// What work throws, in a line; empty where it throws nothing.
inline std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return std::string("not of torch: ") + error.what();
  }
  return "";
}

// What work(rank, store) throws in each of `size` threads.
inline std::vector<std::string> errors_in_threads(
    int size, const std::function<void(int, const Store&)>& work) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::string> errors(size);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] { errors[rank] = error_of([&] { work(rank, store); }); });
  }
  threads.clear();
  return errors;
}

// work(backend, rank) in each of `size` threads, which must not throw.
inline void in_threads(int size, const std::function<void(SharedMemoryBackend&, int)>& work) {
  const auto errors = errors_in_threads(size, [&](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, size);
    work(*backend, rank);
  });
  EXPECT_EQ(errors, std::vector<std::string>(size));
}

// The same in processes, which fork from this one; "ended by signal 9" and the like for one that
// answers nothing.
inline std::vector<std::string> errors_in_processes(
    int size, const std::function<void(int, const Store&)>& work) {
  const io::TemporaryFolder folder;
  struct Child {
    pid_t pid;
    int answers;
  };
  std::vector<Child> children;
  for (int rank = 0; rank < size; ++rank) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto store =
          c10::make_intrusive<c10d::FileStore>((folder.path() / "store").string(), size);
      const auto error = error_of([&] { work(rank, store); });
      const auto written = ::write(ends[1], error.data(), error.size());
      ::_exit(written == static_cast<ssize_t>(error.size()) ? 0 : 1);
    }
    ::close(ends[1]);
    children.push_back({pid, ends[0]});
  }
  std::vector<std::string> errors;
  for (const auto& [pid, answers] : children) {
    auto& error = errors.emplace_back();
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; (got = ::read(answers, buffer.data(), buffer.size())) > 0;) {
      error.append(buffer.data(), static_cast<size_t>(got));
    }
    ::close(answers);
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) error = "ended by signal " + std::to_string(WTERMSIG(status));
  }
  return errors;
}

}  // namespace mistral_ext::parallel
