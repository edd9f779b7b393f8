#pragma once

#include <latch>
#include <thread>
#include <type_traits>
#include <vector>

namespace mistral_ext {

// What the tests start of threads.
inline constexpr int kThreads = 4;

// What work(thread) returns in each of the threads, which start together.
template <typename Work>
auto run_at_once(const Work& work) {
  std::vector<std::invoke_result_t<Work, int>> results(kThreads);
  std::latch start(kThreads);
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      results[i] = work(i);
    });
  }
  threads.clear();
  return results;
}

// The same one after the other. In a new thread too, so that torch splits its sums alike.
template <typename Work>
auto run_in_turn(const Work& work) {
  std::vector<std::invoke_result_t<Work, int>> results(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    std::jthread([&, i] { results[i] = work(i); }).join();
  }
  return results;
}

}  // namespace mistral_ext
