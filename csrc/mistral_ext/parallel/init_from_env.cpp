#include "mistral_ext/parallel/init_from_env.h"

#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/launch_environment.h"
#include "mistral_ext/parallel/shared_memory_backend.h"
#include "mistral_ext/parallel/store_wait.h"

namespace mistral_ext::parallel {
namespace {

c10::intrusive_ptr<c10d::Store> connect(const LaunchEnvironment& launch,
                                        std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = launch.master_port;
  options.isServer = launch.rank == 0 && !launch.launcher_serves;
  // Who is late is found out, and named, by those who wait for it.
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    return c10::make_intrusive<c10d::TCPStore>(launch.master_address, options);
  } catch (const std::exception& error) {
    C10_THROW_ERROR(
        DistBackendError,
        fmt::format("init_from_env: rank {} cannot {} MASTER_ADDR {}, MASTER_PORT {}: {}",
                    launch.rank,
                    options.isServer ? "serve the group's store at" : "reach",
                    launch.master_address,
                    launch.master_port,
                    message_of(error)));
  }
}

}  // namespace

c10::intrusive_ptr<c10d::ProcessGroup> init_from_env(const InitOptions& options) {
  const auto launch = read_launch_environment();
  MISTRAL_EXT_CHECK(
      launch.world_size == 1 || options.device == c10::DeviceType::CPU,
      "init_from_env: device must be cpu where there are several ranks, got {} and {} "
      "ranks: groups for other devices are made in Python, by "
      "torch.distributed.init_process_group",
      c10::DeviceTypeName(options.device, true),
      launch.world_size);
  MISTRAL_EXT_CHECK(options.timeout.count() > 0,
                    "init_from_env: timeout must be positive, got {} ms",
                    options.timeout.count());
  c10::intrusive_ptr<c10d::Store> store;
  if (launch.world_size == 1) {
    store = c10::make_intrusive<c10d::HashStore>();
  } else {
    store = connect(launch, options.timeout);
  }
  store = c10::make_intrusive<c10d::PrefixStore>(
      fmt::format("mistral_ext/{}/{}", launch.attempt, options.group_name), store);
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, launch.rank, launch.world_size);
  const c10::intrusive_ptr<c10d::Backend> backend =
      c10::make_intrusive<SharedMemoryBackend>(c10::make_intrusive<c10d::PrefixStore>("cpu", store),
                                               launch.rank,
                                               launch.world_size,
                                               options.timeout,
                                               options.group_name);
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM, backend);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
  group->setGroupName(options.group_name);
  c10d::register_process_group(options.group_name, group);
  return group;
}

}  // namespace mistral_ext::parallel
