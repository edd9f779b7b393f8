#pragma once

#include <exception>
#include <string_view>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace mistral_ext::parallel {

// For backends that say what broke but not who: gloo's "connection closed by peer", NCCL's
// "unhandled system error".

// Writes to the group's store which process this rank is, so that others of its host can see
// whether it still lives. For each rank, when it begins to use the group.
void introduce_rank(c10d::ProcessGroup& group);

// Called when a collective threw: throws c10::DistBackendError that names the group, the
// collective, the ranks that have ended or do not answer, and what the backend says, on one line.
// Each rank that comes here writes so to the group's store, and waits for the others for at most 10
// s or the group's time-out; less where one is known to have ended. A rank that still waits in the
// collective does not answer either. Where the store is gone, says who serves it.
//
// The errors of SharedMemoryBackend name their ranks, and are thrown on as they are.
[[noreturn]] void throw_collective_failure(c10d::ProcessGroup& group,
                                           std::string_view collective,
                                           const std::exception& cause);

}  // namespace mistral_ext::parallel
