#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace mistral_ext::parallel {

// What the launcher of several processes has told this one.
struct LaunchEnvironment {
  int rank = 0;
  int world_size = 1;
  std::optional<int> local_rank;  // among the ranks of this host
  // Of the store that they meet in; empty where there is one rank.
  std::string master_address;
  uint16_t master_port = 0;
  // The launcher serves the store. Rank 0 does where it is false.
  bool launcher_serves = false;
  // What sets the store's keys of one start apart from those of a restart.
  std::string attempt;
};

// The value of an environment variable; nothing where it is not set.
using Lookup = std::function<std::optional<std::string>(const std::string& name)>;

// From RANK, WORLD_SIZE and LOCAL_RANK (torchrun), else from what Open MPI, MPICH and its kin, or
// Slurm call them; and from MASTER_ADDR and MASTER_PORT. One rank where there is no number of
// ranks. Without MASTER_ADDR it is 127.0.0.1 where the launcher says that all ranks are on one
// host. Throws ValueError that names the variable, what it must be, and what it is.
LaunchEnvironment read_launch_environment(const Lookup& lookup);

// The same from this process's environment.
LaunchEnvironment read_launch_environment();

}  // namespace mistral_ext::parallel
