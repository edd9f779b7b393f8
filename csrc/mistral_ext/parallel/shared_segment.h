#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "mistral_ext/parallel/collective_call.h"
#include "mistral_ext/parallel/process_identity.h"

namespace mistral_ext::parallel {

// What a rank shows to the others. The first cache line is what they look at in each collective.
struct alignas(64) RankState {
  std::atomic<uint32_t> steps;     // how many it has taken; the others sleep on this
  std::atomic<uint32_t> sleepers;  // how many of them do
  std::array<CollectiveCall, 2> calls;

  alignas(64) std::atomic<uint32_t> has_left;
  ProcessIdentity process;
};

// The memory that the ranks of a group share: a state and two buffers for each rank, and what has
// failed. It has no name in the file system and is gone with the last of its processes, however
// they end.
class SharedSegment {
 public:
  static constexpr size_t kBufferBytes = size_t{1} << 20;
  static constexpr int kMostRanks = 1024;

  // Every rank of the group constructs one, over a store, or a part of one, that nothing else uses.
  // Returns when all have mapped the memory. Throws c10::DistBackendError on every rank where one
  // is on another host or does not come within the time-out. rank < size <= kMostRanks. group: its
  // name in messages.
  SharedSegment(c10d::Store& store,
                int rank,
                int size,
                const std::string& group,
                std::chrono::milliseconds timeout);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  RankState& state(int rank) const;
  // The rank's buffer for the rounds of this parity: kBufferBytes.
  std::byte* buffer(int rank, uint64_t round) const;

  // Of the group's first failure: `text`, or what another rank has written before. Wakes all that
  // sleep.
  std::string record_failure(const std::string& text) const;
  bool has_failed() const;
  // Empty where there is none.
  std::string failure() const;

 private:
  struct Header;

  // Each returns why it could not, or nothing.
  std::string create(int& file, const std::string& token);
  std::string join(const std::string& offer);
  std::string map(int file, const std::string& token, bool fresh);
  Header& header() const;

  int size_;
  size_t bytes_;
  std::byte* memory_ = nullptr;
};

}  // namespace mistral_ext::parallel
