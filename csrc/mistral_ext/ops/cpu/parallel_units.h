#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace mistral_ext::ops {

// Multiplications a thread takes at least: below this, waking another one costs more than it saves.
inline constexpr int64_t kThreadProducts = 128 * 1024;

// Calls work(scratch, i) for every i of [0, count), each thread taking the next one as it becomes
// free, so the longest should come first. `scratch` is scratch_size floats of the thread's own;
// `products` is about how many multiplications all of the work is.
template <typename Function>
void for_each_unit(int64_t count, int64_t scratch_size, int64_t products, const Function& work) {
  const int64_t most = std::min<int64_t>(count, at::get_num_threads());
  const int64_t threads = std::min(most, products / kThreadProducts + 1);
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const auto scratch = at::detail::empty_cpu({scratch_size}, at::kFloat);
    float* const memory = scratch.mutable_data_ptr<float>();
    for (int64_t i = next++; i < count; i = next++) work(memory, i);
  });
}

}  // namespace mistral_ext::ops
