#include "mistral_ext/io/on_threads.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <iterator>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace mistral_ext::io {
namespace {

// False where the machine gives no more threads: those there are do the work.
bool start(std::vector<std::jthread>& threads, const std::function<void()>& run) {
  try {
    threads.emplace_back(run);
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

}  // namespace

void on_threads(int64_t threads, int64_t count, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  std::exception_ptr first_error;
  std::mutex error_mutex;
  const bool inference = c10::InferenceMode::is_enabled();
  const auto run = [&]() noexcept {
    const c10::InferenceMode as_the_caller(inference);  // each thread has its own
    try {
      for (int64_t i = next++; i < count; i = next++) work(i);
    } catch (...) {
      next = count;
      const std::lock_guard lock(error_mutex);
      if (!first_error) first_error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    while (std::ssize(others) + 1 < std::min(threads, count) && start(others, run)) {
    }
    run();
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace mistral_ext::io
