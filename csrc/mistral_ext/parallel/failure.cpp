#include "mistral_ext/parallel/failure.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "mistral_ext/parallel/process_identity.h"
#include "mistral_ext/parallel/shared_memory_backend.h"
#include "mistral_ext/parallel/store_wait.h"

namespace mistral_ext::parallel {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongest{10'000};
constexpr milliseconds kBetweenLooks{20};

std::string process_key(int rank) { return fmt::format("mistral_ext/process/{}", rank); }
std::string failed_key(int rank) { return fmt::format("mistral_ext/failed/{}", rank); }

// The rank's process, where it has introduced itself and is on this host.
std::optional<ProcessIdentity> process_of(c10d::Store& store, int rank) {
  if (!store.check({process_key(rank)})) return std::nullopt;
  std::istringstream text(store.get_to_str(process_key(rank)));
  std::string host;
  ProcessIdentity process;
  text >> process.pid >> process.started >> host;
  if (text.fail() || host != this_host()) return std::nullopt;
  return process;
}

// Who is missing, in words; empty where all have answered.
std::string roll_call(c10d::Store& store, int rank, int size, milliseconds limit) {
  store.set(failed_key(rank), "failed");
  std::vector<int> silent;
  for (int other = 0; other < size; ++other) {
    if (other != rank) silent.push_back(other);
  }
  const auto deadline = Clock::now() + limit;
  while (true) {
    std::erase_if(silent, [&](int other) { return store.check({failed_key(other)}); });
    if (silent.empty()) return "";
    for (const int other : silent) {
      const auto process = process_of(store, other);
      if (process && has_ended(*process)) {
        return fmt::format("rank {} (pid {}) has ended", other, process->pid);
      }
    }
    if (Clock::now() >= deadline) break;
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return fmt::format("{} did not answer within {} ms", list_ranks(silent), limit.count());
}

milliseconds limit_of(c10d::ProcessGroup& group) {
  try {
    return std::clamp(
        group.getDefaultBackend()->getBackendOptions()->timeout, milliseconds(1), kLongest);
  } catch (const std::exception&) {  // a backend that does not tell
    return kLongest;
  }
}

// In a thread that is left alone where the store neither answers nor breaks, as when its host
// cannot be reached any more.
std::string who_is_missing(c10d::ProcessGroup& group) {
  const auto store = group.getStore();
  if (!store) return "the group has no store to ask which rank has ended";
  const auto limit = limit_of(group);
  const auto answer = std::make_shared<std::promise<std::string>>();
  auto missing = answer->get_future();
  std::thread([answer, store, limit, rank = group.getRank(), size = group.getSize()] {
    try {
      answer->set_value(roll_call(*store, rank, size, limit));
    } catch (const std::exception& error) {
      answer->set_value(
          fmt::format("the group's store is gone, and so is who serves it, rank 0 or the launcher "
                      "({})",
                      message_of(error)));
    }
  }).detach();
  if (missing.wait_for(limit + milliseconds(2000)) == std::future_status::ready) {
    return missing.get();
  }
  return "the group's store, which rank 0 or the launcher serves, does not answer";
}

}  // namespace

void introduce_rank(c10d::ProcessGroup& group) {
  const auto store = group.getStore();
  if (!store) return;
  const auto process = this_process();
  store->set(process_key(group.getRank()),
             fmt::format("{} {} {}", process.pid, process.started, this_host()));
}

void throw_collective_failure(c10d::ProcessGroup& group,
                              std::string_view collective,
                              const std::exception& cause) {
  const auto said = message_of(cause);
  std::string backend;
  try {
    backend = group.getDefaultBackend()->getBackendName();
  } catch (const std::exception&) {
    backend = group.getBackendName();
  }
  if (backend == kSharedMemoryBackend) C10_THROW_ERROR(DistBackendError, said);
  auto who = who_is_missing(group);
  if (who.empty()) who = "all ranks say so";
  std::string name;
  try {
    name = group.getGroupName();
  } catch (const std::exception&) {
    name = "without a name";
  }
  C10_THROW_ERROR(
      DistBackendError,
      fmt::format(
          "{}: group {} has failed: {}; {} says: {}", collective, name, who, backend, said));
}

}  // namespace mistral_ext::parallel
