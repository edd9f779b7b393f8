#include "mistral_ext/parallel/init_from_env.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <torch/torch.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>

#include "mistral_ext/parallel/failure.h"
#include "parallel/ranks.h"

namespace mistral_ext::parallel {
namespace {

using std::chrono::milliseconds;

// One that was free a moment ago.
std::string free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(socket);
  return std::to_string(ntohs(address.sin_port));
}

void set_environment(int rank, int size, const std::string& port) {
  ::setenv("RANK", std::to_string(rank).c_str(), 1);
  ::setenv("WORLD_SIZE", std::to_string(size).c_str(), 1);
  ::setenv("MASTER_ADDR", "127.0.0.1", 1);
  ::setenv("MASTER_PORT", port.c_str(), 1);
}

InitOptions with_timeout(milliseconds timeout) {
  InitOptions options;
  options.timeout = timeout;
  return options;
}

TEST(InitFromEnv, RanksFindEachOtherAndTheirGroupByName) {
  const auto port = free_port();
  const auto errors = errors_in_processes(3, [&](int rank, const Store&) {
    set_environment(rank, 3, port);
    const auto group = init_from_env(with_timeout(kLong));
    TORCH_CHECK(group->getRank() == rank && group->getSize() == 3);
    TORCH_CHECK(group->getBackend(c10::DeviceType::CPU)->getBackendName() == "mistral_shm");
    std::vector<at::Tensor> tensors = {torch::full({2}, rank + 1.0)};
    c10d::resolve_process_group("world")->allreduce(tensors)->wait();
    TORCH_CHECK(tensors[0].sum().item<double>() == 12.0);
    group->barrier()->wait();
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST(InitFromEnv, AProgramStartedAloneIsAGroupOfOne) {
  ::unsetenv("RANK");
  ::unsetenv("WORLD_SIZE");
  InitOptions options;
  options.group_name = "alone";
  const auto group = init_from_env(options);
  EXPECT_EQ(group->getSize(), 1);
  EXPECT_EQ(c10d::resolve_process_group("alone"), group);
  std::vector<at::Tensor> tensors = {torch::ones({2})};
  group->allreduce(tensors)->wait();
  EXPECT_TRUE(torch::equal(tensors[0], torch::ones({2})));
}

TEST(InitFromEnv, RanksThatAreMissingAreNamed) {
  const auto port = free_port();
  const auto errors = errors_in_processes(3, [&](int rank, const Store&) {
    set_environment(rank, 3, port);
    if (rank == 2) return;
    init_from_env(with_timeout(milliseconds(1500)));
  });
  EXPECT_EQ(errors[0], "mistral_shm: group world: rank 2 did not come within 1500 ms");
  // Rank 0 may be gone with its store before the other has read why.
  EXPECT_NE(errors[1], "");
  EXPECT_EQ(errors[2], "");
}

TEST(InitFromEnv, AMasterThatCannotBeReachedIsNamed) {
  const auto port = free_port();
  const auto errors = errors_in_processes(1, [&](int, const Store&) {
    set_environment(1, 2, port);
    init_from_env(with_timeout(milliseconds(300)));
  });
  const auto expected =
      "init_from_env: rank 1 cannot reach MASTER_ADDR 127.0.0.1, MASTER_PORT " + port + ": ";
  EXPECT_EQ(errors[0].substr(0, expected.size()), expected);
}

TEST(InitFromEnv, OtherDevicesNeedPython) {
  const auto errors = errors_in_processes(1, [&](int, const Store&) {
    set_environment(1, 2, "29500");
    InitOptions options;
    options.device = c10::DeviceType::CUDA;
    init_from_env(options);
  });
  EXPECT_EQ(
      errors[0],
      "init_from_env: device must be cpu where there are several ranks, got cuda and 2 ranks: "
      "groups for other devices are made in Python, by torch.distributed.init_process_group");
}

}  // namespace
}  // namespace mistral_ext::parallel
