#include "mistral_ext/parallel/rounds.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "mistral_ext/parallel/futex.h"
#include "mistral_ext/parallel/store_wait.h"

namespace mistral_ext::parallel {
namespace {

// About what falling asleep and being woken takes on a machine with nothing else to do.
constexpr std::chrono::microseconds kSpin{50};
// How long a rank that has ended may go unnoticed.
constexpr std::chrono::milliseconds kSleep{50};

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The cores that this process may run on. With fewer than there are ranks, a rank that spins may
// keep the one that it waits for from running.
int cores() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace

Rounds::Rounds(c10d::Store& store,
               int rank,
               int size,
               const std::string& group,
               std::chrono::milliseconds timeout)
    : segment_(store, rank, size, group, timeout),
      rank_(rank),
      size_(size),
      group_(group),
      spins_(cores() >= size),
      process_(this_process()) {}

Rounds::~Rounds() { leave(); }

void Rounds::leave() {
  // A forked child has the parent's object, and is no rank.
  if (left_ || ::getpid() != process_.pid) return;
  left_ = true;
  auto& me = segment_.state(rank_);
  me.has_left.store(1);
  wake_all(me.steps);
}

void Rounds::abort() {
  segment_.record_failure(fmt::format(
      "mistral_shm: rank {} (pid {}) has aborted group {}", rank_, process_.pid, group_));
}

void Rounds::begin(const CollectiveCall& call, std::chrono::milliseconds timeout) {
  if (segment_.has_failed()) {
    C10_THROW_ERROR(DistBackendError, segment_.record_failure("another rank has failed"));
  }
  if (left_ || ::getpid() != process_.pid) {
    C10_THROW_ERROR(
        DistBackendError,
        fmt::format("{}: this process has left group {}, or was forked from its rank {}",
                    name_of(call.collective),
                    group_,
                    rank_));
  }
  ++calls_;
  call_ = call;
  compared_ = false;
  timeout_ = timeout;
  begun_ = {};
  segment_.state(rank_).calls[round_ & 1] = call;
}

void Rounds::meet() {
  auto& me = segment_.state(rank_);
  ++step_;
  // In one order with what wait_for does on the other side: either it sees the step, or the load
  // here sees the sleeper.
  me.steps.store(step_, std::memory_order_seq_cst);
  if (me.sleepers.load(std::memory_order_seq_cst) != 0) wake_all(me.steps);
  for (int i = 1; i < size_; ++i) {
    const int other = (rank_ + i) % size_;
    if (!has_come(other)) wait_for(other);
  }
  if (!compared_) compare_calls();
}

bool Rounds::has_come(int rank) const {
  // A difference, since the count wraps.
  const uint32_t steps = segment_.state(rank).steps.load(std::memory_order_acquire);
  return static_cast<int32_t>(steps - step_) >= 0;
}

bool Rounds::spin(int rank) {
  if (skipped_spins_ > 0) {
    --skipped_spins_;
    return false;
  }
  const auto until = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (has_come(rank)) {
        failed_spins_ = 0;
        return true;
      }
      pause_briefly();
    }
  } while (Clock::now() < until);
  // Where other processes have the cores, spinning is in the way of the one that is waited for.
  failed_spins_ = std::min(failed_spins_ + 1, 6);
  skipped_spins_ = (1 << failed_spins_) - 1;
  return false;
}

void Rounds::wait_for(int rank) {
  if (spins_ && spin(rank)) return;
  if (begun_ == Clock::time_point{}) begun_ = Clock::now();
  auto& state = segment_.state(rank);
  state.sleepers.fetch_add(1, std::memory_order_seq_cst);
  const auto awake = [&] { state.sleepers.fetch_sub(1, std::memory_order_relaxed); };
  try {
    while (true) {
      const uint32_t steps = state.steps.load(std::memory_order_seq_cst);
      if (has_come(rank)) break;
      const auto asleep = Clock::now();
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(begun_ + timeout_ - asleep);
      sleep_while(state.steps, steps, std::clamp(left, std::chrono::milliseconds(1), kSleep));
      if (has_come(rank)) break;
      look_after(Clock::now() - asleep >= kSleep);
    }
  } catch (...) {
    awake();
    throw;
  }
  awake();
}

std::vector<int> Rounds::missing() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_ && !has_come(rank)) ranks.push_back(rank);
  }
  return ranks;
}

// Throws where waiting has become pointless.
void Rounds::look_after(bool slept_through) {
  if (segment_.has_failed()) fail("another rank has failed");
  const bool late = Clock::now() >= begun_ + timeout_;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) continue;
    auto& state = segment_.state(rank);
    // Asked before its step: a rank may leave once it has taken the step that is waited for.
    const bool left = state.has_left.load() != 0;
    const bool ended =
        !left && (slept_through || late) && !has_come(rank) && has_ended(state.process);
    if (!(left || ended) || has_come(rank)) continue;
    fail(fmt::format("rank {} (pid {}) of group {} has {}",
                     rank,
                     state.process.pid,
                     group_,
                     left ? "left it" : "ended"));
  }
  const auto ranks = missing();
  if (!late || ranks.empty()) return;
  fail(fmt::format("{} of group {} did not come to its call number {} within {} ms",
                   list_ranks(ranks),
                   group_,
                   calls(),
                   timeout_.count()));
}

void Rounds::compare_calls() {
  compared_ = true;
  const auto first = segment_.state(0).calls[round_ & 1];
  for (int rank = 1; rank < size_; ++rank) {
    const auto other = segment_.state(rank).calls[round_ & 1];
    if (other == first) continue;
    fail(fmt::format(
        "call number {} of group {} must be the same on all ranks, got {} on rank 0 and "
        "{} on rank {}",
        calls(),
        group_,
        describe(first),
        describe(other),
        rank));
  }
}

void Rounds::fail(const std::string& message) {
  C10_THROW_ERROR(
      DistBackendError,
      segment_.record_failure(fmt::format("{}: {}", name_of(call_.collective), message)));
}

}  // namespace mistral_ext::parallel
