#include "mistral_ext/parallel/launch_environment.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "ops/error_message.h"

namespace mistral_ext::parallel {
namespace {

using Variables = std::map<std::string, std::string>;

LaunchEnvironment read(const Variables& variables) {
  return read_launch_environment([&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string error(const Variables& variables) {
  return ops::error_message([&] { read(variables); });
}

Variables torchrun() {
  return {{"RANK", "1"},
          {"WORLD_SIZE", "4"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "4"},
          {"MASTER_ADDR", "host"},
          {"MASTER_PORT", "29500"}};
}

Variables changed(const std::string& name, const std::string& value) {
  auto variables = torchrun();
  variables[name] = value;
  return variables;
}

Variables without(const std::string& name) {
  auto variables = torchrun();
  variables.erase(name);
  return variables;
}

TEST(LaunchEnvironment, WithoutALauncherThereIsOneRank) {
  // The last are those of a batch script that asks Slurm for eight tasks and starts none with srun.
  for (const Variables& variables : {Variables{},
                                     {{"WORLD_SIZE", "1"}},
                                     {{"MASTER_PORT", "x"}},
                                     {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}}) {
    const auto found = read(variables);
    EXPECT_EQ(found.rank, 0);
    EXPECT_EQ(found.world_size, 1);
    EXPECT_EQ(found.master_address, "");
  }
}

TEST(LaunchEnvironment, IsThatOfTorchrun) {
  auto variables = torchrun();
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  variables["TORCHELASTIC_RESTART_COUNT"] = "2";
  const auto found = read(variables);
  EXPECT_EQ(found.rank, 1);
  EXPECT_EQ(found.world_size, 4);
  EXPECT_EQ(found.local_rank, 1);
  EXPECT_EQ(found.master_address, "host");
  EXPECT_EQ(found.master_port, 29500);
  EXPECT_TRUE(found.launcher_serves);
  EXPECT_EQ(found.attempt, "2");
  EXPECT_FALSE(read(torchrun()).launcher_serves);
}

TEST(LaunchEnvironment, IsThatOfLaunchersOfMpiAndOfSlurm) {
  const std::vector<std::vector<std::string>> launchers = {
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
      {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
      {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"}};
  for (const auto& names : launchers) {
    const auto found = read({{names[0], "3"},
                             {names[1], "4"},
                             {names[2], "1"},
                             {"MASTER_ADDR", "::1"},
                             {"MASTER_PORT", "1"}});
    EXPECT_EQ(found.rank, 3) << names[0];
    EXPECT_EQ(found.world_size, 4);
    EXPECT_EQ(found.local_rank, 1);
    EXPECT_EQ(found.master_address, "::1");
  }
}

TEST(LaunchEnvironment, TorchrunsNamesGoFirst) {
  auto variables = torchrun();
  variables["OMPI_COMM_WORLD_RANK"] = "3";
  variables["OMPI_COMM_WORLD_SIZE"] = "8";
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_STEP_NUM_TASKS"] = "1";
  EXPECT_EQ(read(variables).rank, 1);
  EXPECT_EQ(read(variables).world_size, 4);
}

TEST(LaunchEnvironment, WhereAllRanksAreOnOneHostItIsTheMaster) {
  EXPECT_EQ(read(without("MASTER_ADDR")).master_address, "127.0.0.1");
  const Variables slurm = {
      {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"MASTER_PORT", "1"}};
  auto on_one_node = slurm;
  on_one_node["SLURM_STEP_NUM_NODES"] = "1";
  EXPECT_EQ(read(on_one_node).master_address, "127.0.0.1");
  const std::string expected =
      "init_from_env: MASTER_ADDR must be the name or address of the host of rank 0, got none";
  EXPECT_EQ(error(slurm), expected);
  auto on_two_hosts = without("MASTER_ADDR");
  on_two_hosts["LOCAL_WORLD_SIZE"] = "2";
  EXPECT_EQ(error(on_two_hosts), expected);
}

TEST(LaunchEnvironment, WrongVariablesAreNamed) {
  EXPECT_EQ(error(without("WORLD_SIZE")),
            "init_from_env: WORLD_SIZE must be set where RANK is, got none");
  EXPECT_EQ(error(without("RANK")),
            "init_from_env: RANK must be set where WORLD_SIZE is 4, got none");
  EXPECT_EQ(error(changed("WORLD_SIZE", "0")),
            "init_from_env: WORLD_SIZE must be a whole number from 1 to 1048576, got \"0\"");
  for (const std::string value :
       {"", "-1", "4", "1 ", " 1", "one", "1.5", "99999999999999999999"}) {
    EXPECT_EQ(
        error(changed("RANK", value)),
        fmt::format("init_from_env: RANK must be a whole number from 0 to 3, got \"{}\"", value));
  }
  EXPECT_EQ(error(changed("LOCAL_RANK", "4")),
            "init_from_env: LOCAL_RANK must be a whole number from 0 to 3, got \"4\"");
  EXPECT_EQ(
      error(changed("MASTER_ADDR", "")),
      "init_from_env: MASTER_ADDR must be the name or address of the host of rank 0, got \"\"");
  EXPECT_EQ(error(without("MASTER_PORT")),
            "init_from_env: MASTER_PORT must be a port that is free on the host of rank 0, such as "
            "29500, got none");
  EXPECT_EQ(error(changed("MASTER_PORT", "65536")),
            "init_from_env: MASTER_PORT must be a whole number from 1 to 65535, got \"65536\"");
}

}  // namespace
}  // namespace mistral_ext::parallel
