#pragma once

#include <c10/core/DeviceType.h>

#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace mistral_ext::parallel {

struct InitOptions {
  // By which c10d::resolve_process_group finds the group while something holds it.
  std::string group_name = "world";
  // Of the start, and of each collective.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
  // Whose tensors the collectives are for.
  c10::DeviceType device = c10::DeviceType::CPU;
};

// The group of all processes that torchrun, mpirun or srun has started, for programs without Python
// (which has torch.distributed.init_process_group). Each process calls it once, and they wait for
// each other. A program that was started alone gets a group of one rank.
//
// Collectives of CPU tensors go through SharedMemoryBackend: the ranks are on one host. There are
// none for other devices: torch's headers for them need the toolkits that torch was built with, so
// a program of several ranks on GPUs is started from Python.
//
// Throws ValueError for the environment's mistakes, see read_launch_environment, and
// c10::DistBackendError where the ranks do not come together in time.
c10::intrusive_ptr<c10d::ProcessGroup> init_from_env(const InitOptions& options = {});

}  // namespace mistral_ext::parallel
