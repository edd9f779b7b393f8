#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <iterator>
#include <thread>

#include "mistral_ext/ops/silu_mul.h"

namespace mistral_ext::ops {
namespace {

int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

// at::parallel_for does all the work itself where the library is compiled without OpenMP.
TEST(Threads, AnOperatorSharesOutItsWorkAmongTorchsThreads) {
#ifdef __clang__
  GTEST_SKIP() << "needs GCC's OpenMP";
#endif
  at::set_num_threads(3);
  const auto x = torch::ones({1 << 20});
  // Torch's threads are those of the thread that asks for them: this one has none yet.
  std::jthread([&] {
    const auto before = threads_of_this_process();
    const auto y = silu_mul(x, x);
    EXPECT_EQ(threads_of_this_process(), before + at::get_num_threads() - 1);
    EXPECT_EQ(at::get_num_threads(), 3);
    EXPECT_TRUE(torch::allclose(y, x / (1 + torch::exp(-x))));
  }).join();
}

}  // namespace
}  // namespace mistral_ext::ops
