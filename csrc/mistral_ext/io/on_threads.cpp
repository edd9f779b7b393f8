#include "mistral_ext/io/on_threads.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace mistral_ext::io {

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
    try {
      for (int64_t i = 1; i < std::min(threads, count); ++i) others.emplace_back(run);
    } catch (const std::system_error&) {  // the machine gives no more: those there are do it
    }
    run();
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace mistral_ext::io
