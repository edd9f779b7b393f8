#include "mistral_ext/parallel/failure.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "io/child_process.h"
#include "parallel/ranks.h"

namespace mistral_ext::parallel {
namespace {

using std::chrono::milliseconds;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

// Of a library whose errors name no rank.
class OtherBackend : public c10d::Backend {
 public:
  OtherBackend(int rank, int size, milliseconds timeout) : Backend(rank, size), timeout_(timeout) {}
  const std::string getBackendName() const override { return "other"; }
  c10::intrusive_ptr<Options> getBackendOptions() override {
    return c10::make_intrusive<Options>("other", timeout_);
  }

 private:
  milliseconds timeout_;
};

Group make_group(const Store& store, int rank, int size, milliseconds timeout) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  const c10::intrusive_ptr<c10d::Backend> backend =
      c10::make_intrusive<OtherBackend>(rank, size, timeout);
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM, backend);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
  group->setGroupName("tp");
  introduce_rank(*group);
  return group;
}

void fail(c10d::ProcessGroup& group) {
  throw_collective_failure(group, "all_reduce", std::runtime_error("closed\nat some line"));
}

TEST(Failure, WhereAllAnswerNobodyIsAccused) {
  const auto errors = errors_in_threads(
      3, [](int rank, const Store& store) { fail(*make_group(store, rank, 3, kLong)); });
  EXPECT_EQ(errors,
            std::vector<std::string>(
                3, "all_reduce: group tp has failed: all ranks say so; other says: closed"));
}

TEST(Failure, ARankThatHasEndedIsNamedAtOnce) {
  const auto errors = errors_in_processes(3, [](int rank, const Store& store) {
    const auto group = make_group(store, rank, 3, kLong);
    store->wait({"mistral_ext/process/0", "mistral_ext/process/1", "mistral_ext/process/2"});
    if (rank == 1) ::raise(SIGKILL);
    fail(*group);
  });
  const std::string begin = "all_reduce: group tp has failed: rank 1 (pid ";
  EXPECT_EQ(errors[0].substr(0, begin.size()), begin);
  EXPECT_EQ(errors[0].substr(errors[0].find(')')), ") has ended; other says: closed");
  EXPECT_EQ(errors[2], errors[0]);
}

TEST(Failure, RanksThatDoNotAnswerAreNamed) {
  const auto errors = errors_in_threads(3, [](int rank, const Store& store) {
    const auto group = make_group(store, rank, 3, milliseconds(100));
    if (rank == 0) fail(*group);
  });
  EXPECT_EQ(errors[0],
            "all_reduce: group tp has failed: ranks 1 and 2 did not answer within 100 ms; other "
            "says: closed");
}

TEST(Failure, AStoreThatIsGoneIsToldWithWhoServesIt) {
  const auto error = io::in_child([] {
    c10d::TCPStoreOptions options;
    options.port = 0;
    options.isServer = true;
    auto server = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
    options.port = server->getPort();
    options.isServer = false;
    const Store client = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
    const auto group = make_group(client, 1, 2, milliseconds(1000));
    server.reset();
    return error_of([&] { fail(*group); });
  });
  const std::string expected =
      "all_reduce: group tp has failed: the group's store is gone, and so is who serves it, rank 0 "
      "or the launcher (";
  EXPECT_EQ(error.substr(0, expected.size()), expected);
}

// Asks nobody, and never returns.
class DeafStore : public c10d::HashStore {
 public:
  bool check(const std::vector<std::string>&) override {
    std::this_thread::sleep_for(std::chrono::hours(1));
    return false;
  }
};

TEST(Failure, AStoreThatDoesNotAnswerIsNotWaitedForForever) {
  const auto error = io::in_child([] {
    const auto group = make_group(c10::make_intrusive<DeafStore>(), 0, 2, milliseconds(1));
    return error_of([&] { fail(*group); });
  });
  EXPECT_EQ(
      error,
      "all_reduce: group tp has failed: the group's store, which rank 0 or the launcher serves, "
      "does not answer; other says: closed");
}

TEST(Failure, WhatNamesItsRanksIsThrownOnAsItIs) {
  const auto errors = errors_in_threads(1, [](int, const Store& store) {
    auto group = c10::make_intrusive<c10d::ProcessGroup>(store, 0, 1);
    const c10::intrusive_ptr<c10d::Backend> backend = make_backend(store, 0, 1);
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM, backend);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
    fail(*group);
  });
  EXPECT_EQ(errors[0], "closed");
}

}  // namespace
}  // namespace mistral_ext::parallel
