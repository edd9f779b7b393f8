// Ranks that are threads, some of several threads each. Run under ThreadSanitizer too.

#include <torch/torch.h>

#include "mistral_ext/parallel/shared_memory_backend.h"
#include "parallel/ranks.h"

namespace mistral_ext::parallel {
namespace {

torch::Tensor all_reduced(SharedMemoryBackend& backend, torch::Tensor tensor) {
  std::vector<torch::Tensor> tensors = {std::move(tensor)};
  c10d::AllreduceOptions options;
  backend.allreduce(tensors, options);
  return tensors[0];
}

TEST(Threads, OfARankTakeTurns) {
  in_threads(2, [](SharedMemoryBackend& backend, int rank) {
    const auto work = [&] {
      for (int call = 0; call < 200; ++call) {
        // The same from each, so that any order of the calls is the same on both ranks.
        const auto sum = all_reduced(backend, torch::full({3000}, float(rank + 1)));
        ASSERT_TRUE((sum == 3.0f).all().item<bool>());
      }
    };
    const std::jthread one(work);
    const std::jthread another(work);
    work();
  });
}

TEST(Threads, SeveralGroupsAreApart) {
  const auto first = c10::make_intrusive<c10d::HashStore>();
  const auto second = c10::make_intrusive<c10d::HashStore>();
  const auto errors = errors_in_threads(4, [&](int rank, const Store& all) {
    const auto everyone = make_backend(all, rank, 4);
    const auto pair = make_backend(rank % 2 == 0 ? first : second, rank / 2, 2);
    for (int call = 0; call < 100; ++call) {
      const auto of_pair = all_reduced(*pair, torch::full({5}, float(rank)));
      TORCH_CHECK(of_pair[0].item<float>() == float(rank % 2 == 0 ? 2 : 4));
      const auto of_all = all_reduced(*everyone, torch::full({20'000}, float(rank)));
      TORCH_CHECK(of_all[-1].item<float>() == 6.0f);
    }
  });
  EXPECT_EQ(errors, std::vector<std::string>(4));
}

TEST(Threads, AnAbortMayComeFromAnotherThread) {
  in_threads(2, [](SharedMemoryBackend& backend, int rank) {
    std::jthread watchdog;
    if (rank == 1) watchdog = std::jthread([&] { backend.abort(); });
    const auto error = error_of([&] {
      while (true) all_reduced(backend, torch::ones({100}));
    });
    EXPECT_NE(error.find("has aborted group tp"), std::string::npos);
  });
}

}  // namespace
}  // namespace mistral_ext::parallel
