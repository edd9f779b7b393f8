// Ranks that end, do not come, or ask for different things: each of the others is told.

#include <torch/torch.h>

#include <ctime>
#include <filesystem>
#include <fstream>

#include "io/child_process.h"
#include "mistral_ext/parallel/shared_memory_backend.h"
#include "parallel/ranks.h"

namespace mistral_ext::parallel {
namespace {

using c10d::ReduceOp;
using std::chrono::milliseconds;
using Strings = std::vector<std::string>;
using Tensors = std::vector<torch::Tensor>;

void all_reduce(SharedMemoryBackend& backend,
                const torch::Tensor& tensor,
                milliseconds timeout = c10d::kUnsetTimeout,
                ReduceOp::RedOpType op = ReduceOp::SUM) {
  c10d::AllreduceOptions options;
  options.timeout = timeout;
  options.reduceOp = op;
  Tensors tensors = {tensor};
  backend.allreduce(tensors, options);
}

std::string without_pid(std::string text) {
  const auto begin = text.find(" (pid ");
  if (begin != std::string::npos) text.erase(begin, text.find(')', begin) + 1 - begin);
  return text;
}

TEST(Failures, ARankThatIsKilledBetweenCallsIsNamed) {
  const auto errors = errors_in_processes(3, [](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, 3);
    for (int i = 0;; ++i) {
      if (rank == 1 && i == 100) ::raise(SIGKILL);
      all_reduce(*backend, torch::ones(10));
    }
  });
  EXPECT_EQ(errors[1], "ended by signal 9");
  EXPECT_EQ(without_pid(errors[0]), "all_reduce: rank 1 of group tp has ended");
  EXPECT_NE(errors[0], without_pid(errors[0]));
  EXPECT_EQ(errors[2], errors[0]);
}

TEST(Failures, ARankThatIsKilledInACallIsNamed) {
  const auto errors = errors_in_processes(2, [](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, 2);
    backend->barrier({});
    std::jthread killer;
    if (rank == 1) {
      killer = std::jthread([] {
        std::this_thread::sleep_for(milliseconds(50));
        ::raise(SIGKILL);
      });
    }
    const auto large = torch::ones(20 << 20);
    while (true) all_reduce(*backend, large);
  });
  EXPECT_EQ(errors[1], "ended by signal 9");
  EXPECT_EQ(without_pid(errors[0]), "all_reduce: rank 1 of group tp has ended");
}

TEST(Failures, ARankThatHasLeftIsNamed) {
  const auto errors = errors_in_threads(3, [](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, 3);
    // The others may still be on their way out of it when rank 2 is gone.
    for (int i = 0; i < 100; ++i) all_reduce(*backend, torch::ones(10));
    if (rank == 2) return;
    backend->barrier({});
  });
  EXPECT_EQ(errors[2], "");
  EXPECT_EQ(without_pid(errors[0]), "barrier: rank 2 of group tp has left it");
  EXPECT_EQ(errors[1], errors[0]);
}

TEST(Failures, RanksThatDoNotComeInTimeAreNamed) {
  std::atomic<bool> others_are_told{false};
  const auto errors = errors_in_threads(4, [&](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, 4);
    backend->barrier({});
    while (rank > 1 && !others_are_told) std::this_thread::sleep_for(milliseconds(1));
    const auto first = error_of([&] { all_reduce(*backend, torch::ones(1), milliseconds(100)); });
    others_are_told = true;
    // The failure stays, whatever is called.
    EXPECT_EQ(error_of([&] { backend->barrier({}); }), first);
    C10_THROW_ERROR(Error, first);
  });
  EXPECT_EQ(
      errors,
      Strings(4,
              "all_reduce: ranks 2 and 3 of group tp did not come to its call number 2 within "
              "100 ms"));
}

struct Mismatch {
  std::string expected;
  std::function<void(SharedMemoryBackend&)> of_rank_0;
  std::function<void(SharedMemoryBackend&)> of_rank_1;
};

std::vector<Mismatch> mismatches() {
  const auto reduces = [](int64_t n, at::ScalarType dtype, ReduceOp::RedOpType op) {
    return [=](SharedMemoryBackend& backend) {
      all_reduce(backend, torch::ones({n}, dtype), kLong, op);
    };
  };
  const auto broadcasts = [](int root) {
    return [=](SharedMemoryBackend& backend) {
      c10d::BroadcastOptions options;
      options.rootRank = root;
      Tensors tensors = {torch::ones(4)};
      backend.broadcast(tensors, options);
    };
  };
  const auto exchanges = [](const std::vector<int64_t>& outputs,
                            const std::vector<int64_t>& inputs) {
    return [=](SharedMemoryBackend& backend) {
      auto input = torch::ones({4});
      auto output = torch::ones({4});
      auto input_splits = inputs;
      auto output_splits = outputs;
      backend.alltoall_base(output, input, output_splits, input_splits, {});
    };
  };
  const auto differ =
      [](const std::string& collective, const std::string& a, const std::string& b) {
        return collective + ": call number 1 of group tp must be the same on all ranks, got " + a +
               " on rank 0 and " + b + " on rank 1";
      };
  const auto barrier = [](SharedMemoryBackend& backend) { backend.barrier({}); };
  const auto sum = ReduceOp::SUM;
  return {{differ("*", "all_reduce(sum of 4 Float elements)", "barrier()"),
           reduces(4, at::kFloat, sum),
           barrier},
          {differ("all_reduce",
                  "all_reduce(sum of 4 Float elements)",
                  "all_reduce(max of 4 Float elements)"),
           reduces(4, at::kFloat, sum),
           reduces(4, at::kFloat, ReduceOp::MAX)},
          {differ("all_reduce",
                  "all_reduce(sum of 4 Float elements)",
                  "all_reduce(sum of 4 BFloat16 elements)"),
           reduces(4, at::kFloat, sum),
           reduces(4, at::kBFloat16, sum)},
          {differ("all_reduce",
                  "all_reduce(sum of 1 Float element)",
                  "all_reduce(sum of 1000000 Float elements)"),
           reduces(1, at::kFloat, sum),
           reduces(1'000'000, at::kFloat, sum)},
          {differ("broadcast",
                  "broadcast(4 Float elements from rank 0)",
                  "broadcast(4 Float elements from rank 1)"),
           broadcasts(0),
           broadcasts(1)},
          {"all_to_all: rank 1 must expect what rank 0 sends to it, 3 elements, got 2",
           exchanges({1, 3}, {1, 3}),
           exchanges({2, 2}, {3, 1})}};
}

TEST(Failures, DifferentCallsAreToldToAllBeforeTensorsAreTouched) {
  for (const auto& [expected, of_rank_0, of_rank_1] : mismatches()) {
    auto errors = errors_in_threads(2, [&](int rank, const Store& store) {
      const auto backend = make_backend(store, rank, 2);
      (rank == 0 ? of_rank_0 : of_rank_1)(*backend);
    });
    EXPECT_EQ(errors[0], errors[1]);
    // Where the collectives differ, either may be the one that speaks first.
    const auto begin = expected[0] == '*' ? errors[0].find(':') : 0;
    EXPECT_EQ(errors[0].substr(begin), expected.substr(expected[0] == '*' ? 1 : 0));
  }
  in_threads(2, [](SharedMemoryBackend& backend, int rank) {
    const auto tensor = torch::full({100 + rank}, rank);
    EXPECT_NE(error_of([&] { all_reduce(backend, tensor); }), "");
    EXPECT_TRUE((tensor == rank).all().item<bool>());
  });
}

TEST(Failures, AnAbortReachesThoseWhoWait) {
  const auto errors = errors_in_threads(2, [](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, 2);
    if (rank == 0) backend->barrier({});
    std::this_thread::sleep_for(milliseconds(20));
    backend->abort();
    backend->barrier({});
  });
  EXPECT_EQ(without_pid(errors[0]), "mistral_shm: rank 1 has aborted group tp");
  EXPECT_EQ(errors[1], errors[0]);
}

TEST(Failures, AfterShutdownThereAreNoCalls) {
  const auto errors = errors_in_threads(1, [](int rank, const Store& store) {
    const auto backend = make_backend(store, rank, 1);
    backend->shutdown();
    backend->shutdown();
    backend->barrier({});
  });
  EXPECT_EQ(errors,
            Strings{"barrier: this process has left group tp, or was forked from its rank 0"});
}

TEST(Failures, AForkedChildIsNoRankAndDoesNotEndTheGroup) {
  in_threads(1, [](SharedMemoryBackend& backend, int) {
    const auto error = io::in_child([&] { return error_of([&] { backend.barrier({}); }); });
    EXPECT_EQ(error, "barrier: this process has left group tp, or was forked from its rank 0");
  });
  const auto errors = errors_in_processes(2, [](int rank, const Store& store) {
    auto backend = make_backend(store, rank, 2);
    if (rank == 1) {
      io::in_child([&] {
        backend.reset();
        return "";
      });
    }
    backend->barrier({});
  });
  EXPECT_EQ(errors, Strings(2));
}

TEST(Failures, ARankThatIsNotThereAtTheStartIsNamed) {
  const auto errors = errors_in_threads(3, [](int rank, const Store& store) {
    if (rank != 2) make_backend(store, rank, 3, milliseconds(200));
  });
  EXPECT_EQ(errors,
            (Strings{"mistral_shm: group tp: rank 2 did not come within 200 ms",
                     "mistral_shm: group tp: rank 2 did not come within 200 ms",
                     ""}));
  const auto alone = errors_in_threads(2, [](int rank, const Store& store) {
    if (rank == 1) make_backend(store, rank, 2, milliseconds(100));
  });
  EXPECT_EQ(alone[1], "mistral_shm: group tp: rank 0 did not come within 100 ms");
}

// What rank 1 reads of rank 0's offer is changed on the way.
class ChangingStore : public c10d::HashStore {
 public:
  explicit ChangingStore(std::function<std::string(std::string)> change)
      : change_(std::move(change)) {}

  std::vector<uint8_t> get(const std::string& key) override {
    auto value = HashStore::get(key);
    if (key != "memory") return value;
    const auto text = change_({value.begin(), value.end()});
    return {text.begin(), text.end()};
  }

 private:
  std::function<std::string(std::string)> change_;
};

std::string error_where(const std::function<std::string(std::string)>& change) {
  const Store changing = c10::make_intrusive<ChangingStore>(change);
  const auto errors =
      errors_in_threads(2, [&](int rank, const Store&) { make_backend(changing, rank, 2); });
  EXPECT_EQ(errors[0], errors[1]);
  return errors[0];
}

TEST(Failures, RanksOnDifferentHostsAreRefused) {
  EXPECT_EQ(
      error_where([](const std::string& text) { return text + "0"; }),
      "mistral_shm: rank 1 of group tp is on another host or in another container than rank 0; "
      "mistral_shm is for the ranks of one host, use gloo");
}

TEST(Failures, MemoryOfAnotherGroupIsRefused) {
  EXPECT_EQ(error_where([](std::string text) {
              text[0] = text[0] == '0' ? '1' : '0';
              return text;
            }),
            "mistral_shm: rank 1 of group tp got memory that is not this group's from rank 0");
  EXPECT_EQ(error_where([](const std::string&) { return "nothing"; }),
            "mistral_shm: rank 1 of group tp got no memory from rank 0");
}

int mentions_in_maps() {
  std::ifstream maps("/proc/self/maps");
  int found = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("mistral_shm") != std::string::npos) ++found;
  }
  return found;
}

int open_files() {
  int found = 0;
  for (const auto& file : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const auto target = std::filesystem::read_symlink(file, ignored).string();
    if (target.find("mistral_shm") != std::string::npos) ++found;
  }
  return found;
}

TEST(Memory, HasNoFileOnceAllHaveItAndGoesWithTheLast) {
  in_threads(2, [](SharedMemoryBackend& backend, int) {
    backend.barrier({});
    EXPECT_EQ(mentions_in_maps(), 2);
    backend.barrier({});
  });
  EXPECT_EQ(mentions_in_maps(), 0);
  in_threads(1, [](SharedMemoryBackend&, int) { EXPECT_EQ(open_files(), 0); });
  EXPECT_EQ(open_files(), 0);
}

TEST(Waiting, CostsNoProcessorTime) {
  in_threads(2, [](SharedMemoryBackend& backend, int rank) {
    const auto spent = [] {
      timespec time{};
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
      return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    };
    backend.barrier({});
    if (rank == 1) std::this_thread::sleep_for(milliseconds(500));
    const double before = spent();
    backend.barrier({});
    if (rank == 0) {
      EXPECT_LT(spent() - before, 0.1);
    }
  });
}

}  // namespace
}  // namespace mistral_ext::parallel
