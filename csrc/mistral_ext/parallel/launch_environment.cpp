#include "mistral_ext/parallel/launch_environment.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "mistral_ext/core/check.h"

namespace mistral_ext::parallel {
namespace {

// How a launcher names what it tells.
struct Names {
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

constexpr std::array kLaunchers = {
    Names{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    Names{"OMPI_COMM_WORLD_RANK",
          "OMPI_COMM_WORLD_SIZE",
          "OMPI_COMM_WORLD_LOCAL_RANK",
          "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Names{"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    Names{"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", nullptr},
};

std::optional<int> number(const Lookup& lookup, const char* name, int lowest, int highest) {
  if (name == nullptr) return std::nullopt;
  const auto text = lookup(name);
  if (!text) return std::nullopt;
  int value = 0;
  const char* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, value);
  MISTRAL_EXT_CHECK(error == std::errc{} && stop == end && value >= lowest && value <= highest,
                    "init_from_env: {} must be a whole number from {} to {}, got \"{}\"",
                    name,
                    lowest,
                    highest,
                    *text);
  return value;
}

// The launcher that has set a rank; that of torch where it has set the number of ranks alone. A
// batch script of Slurm's has a rank too, and is one process: it is srun that counts a step's
// tasks.
const Names* launcher_of(const Lookup& lookup) {
  if (lookup(kLaunchers[0].size)) return kLaunchers.data();
  for (const auto& names : kLaunchers) {
    const bool is_slurm = names.local_size == nullptr;
    if (lookup(names.rank) && (!is_slurm || lookup(names.size))) return &names;
  }
  return nullptr;
}

bool on_one_host(const Lookup& lookup, const Names& names, int world_size) {
  constexpr int kMost = std::numeric_limits<int>::max();
  if (number(lookup, names.local_size, 1, kMost) == world_size) return true;
  return names.local_size == nullptr && number(lookup, "SLURM_STEP_NUM_NODES", 1, kMost) == 1;
}

}  // namespace

LaunchEnvironment read_launch_environment(const Lookup& lookup) {
  LaunchEnvironment found;
  const auto* const names = launcher_of(lookup);
  if (names == nullptr) return found;
  constexpr int kMostRanks = 1 << 20;
  const auto size = number(lookup, names->size, 1, kMostRanks);
  MISTRAL_EXT_CHECK(
      size, "init_from_env: {} must be set where {} is, got none", names->size, names->rank);
  found.world_size = *size;
  const auto rank = number(lookup, names->rank, 0, *size - 1);
  MISTRAL_EXT_CHECK(rank || *size == 1,
                    "init_from_env: {} must be set where {} is {}, got none",
                    names->rank,
                    names->size,
                    *size);
  found.rank = rank.value_or(0);
  found.local_rank = number(lookup, names->local_rank, 0, *size - 1);
  if (*size == 1) return found;

  auto address = lookup("MASTER_ADDR");
  if (!address && on_one_host(lookup, *names, *size)) address = "127.0.0.1";
  MISTRAL_EXT_CHECK(address && !address->empty(),
                    "init_from_env: MASTER_ADDR must be the name or address of the host of rank 0, "
                    "got {}",
                    address ? "\"\"" : "none");
  found.master_address = *address;
  const auto port = number(lookup, "MASTER_PORT", 1, std::numeric_limits<uint16_t>::max());
  MISTRAL_EXT_CHECK(port,
                    "init_from_env: MASTER_PORT must be a port that is free on the host of rank 0, "
                    "such as 29500, got none");
  found.master_port = static_cast<uint16_t>(*port);
  found.launcher_serves = lookup("TORCHELASTIC_USE_AGENT_STORE") == "True";
  found.attempt = lookup("TORCHELASTIC_RESTART_COUNT").value_or("0");
  return found;
}

LaunchEnvironment read_launch_environment() {
  return read_launch_environment([](const std::string& name) -> std::optional<std::string> {
    const char* const value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

}  // namespace mistral_ext::parallel
