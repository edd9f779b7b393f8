#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "mistral_ext/parallel/collective_call.h"
#include "mistral_ext/parallel/shared_segment.h"

namespace mistral_ext::parallel {

// How the ranks of a group go through their collectives together.
//
// A collective is a number of rounds. In each, every rank writes to its own buffer, all meet, and
// each reads from the others' buffers. Rounds take turns between two buffers a rank: what one
// writes in round n + 2, all have read in round n, because they have met in round n + 1 since.
//
//     begin(call);
//     do {
//       write to mine(); meet(); read of(rank) ...
//       next_round();
//     } while (more);
//
// A meeting spins for some microseconds, unless that was in vain lately, and then sleeps in the
// kernel. Whoever sleeps looks every 50 ms whether those it waits for still live. What goes wrong
// is thrown as c10::DistBackendError, on all ranks and with the same message, and so is every later
// call.
class Rounds {
 public:
  Rounds(c10d::Store& store,
         int rank,
         int size,
         const std::string& group,
         std::chrono::milliseconds timeout);
  ~Rounds();
  Rounds(const Rounds&) = delete;
  Rounds& operator=(const Rounds&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // The number of collectives begun. For any thread.
  uint64_t calls() const { return calls_; }

  // The first meeting that follows compares the ranks' calls.
  void begin(const CollectiveCall& call, std::chrono::milliseconds timeout);
  void meet();
  void next_round() { ++round_; }

  std::byte* mine() const { return segment_.buffer(rank_, round_); }
  const std::byte* of(int rank) const { return segment_.buffer(rank, round_); }

  // Throws for all ranks. message: what follows the collective's name.
  [[noreturn]] void fail(const std::string& message);

  // Tells the others that this rank takes no further step.
  void leave();
  // Makes this and all later calls fail, on all ranks. For any thread.
  void abort();

 private:
  bool has_come(int rank) const;
  bool spin(int rank);
  void wait_for(int rank);
  void look_after(bool slept_through);
  void compare_calls();
  std::vector<int> missing() const;

  SharedSegment segment_;
  int rank_;
  int size_;
  std::string group_;
  bool spins_;
  ProcessIdentity process_;

  uint32_t step_ = 0;
  uint64_t round_ = 0;
  std::atomic<uint64_t> calls_{0};
  CollectiveCall call_;
  bool compared_ = false;
  bool left_ = false;
  int failed_spins_ = 0;   // in a row
  int skipped_spins_ = 0;  // for so many meetings
  std::chrono::milliseconds timeout_{0};
  std::chrono::steady_clock::time_point begun_;
};

}  // namespace mistral_ext::parallel
