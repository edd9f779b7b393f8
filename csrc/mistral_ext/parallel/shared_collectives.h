#pragma once

#include <c10/core/ScalarType.h>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "mistral_ext/parallel/rounds.h"

namespace mistral_ext::parallel {

// Elements of one dtype, contiguous in memory.
struct Elements {
  c10::ScalarType dtype;
  int64_t count;

  int64_t item() const { return static_cast<int64_t>(c10::elementSize(dtype)); }
  int64_t bytes() const { return count * item(); }
};

// The collectives of the ranks of one host, on plain memory. Each runs in the thread that calls it
// and is done when it returns; threads that call at once take turns. Sizes are any; what is longer
// than a buffer goes through in parts.
class SharedCollectives {
 public:
  using Timeout = std::chrono::milliseconds;

  // As SharedSegment.
  SharedCollectives(
      c10d::Store& store, int rank, int size, const std::string& group, Timeout timeout);

  int rank() const { return rounds_.rank(); }
  int size() const { return rounds_.size(); }
  uint64_t calls() const { return rounds_.calls(); }

  void all_reduce(void* data, Elements elements, Reduction reduction, Timeout timeout);
  // The result is on the root alone; the others' data is as it was.
  void reduce(void* data, Elements elements, Reduction reduction, int root, Timeout timeout);
  void broadcast(void* data, Elements elements, int root, Timeout timeout);
  // outputs: one of `elements` for each rank. output[rank] may be the input.
  void all_gather(std::span<void* const> outputs,
                  const void* input,
                  Elements elements,
                  Timeout timeout);
  // outputs: empty on other ranks than the root.
  void gather(std::span<void* const> outputs,
              const void* input,
              Elements elements,
              int root,
              Timeout timeout);
  // inputs: empty on other ranks than the root.
  void scatter(void* output,
               std::span<const void* const> inputs,
               Elements elements,
               int root,
               Timeout timeout);
  // inputs: one of `elements` for each rank. The output may be inputs[rank].
  void reduce_scatter(void* output,
                      std::span<const void* const> inputs,
                      Elements elements,
                      Reduction reduction,
                      Timeout timeout);
  // To rank i go input_counts[i] elements of inputs[i], from it come output_counts[i].
  void all_to_all(std::span<void* const> outputs,
                  std::span<const int64_t> output_counts,
                  std::span<const void* const> inputs,
                  std::span<const int64_t> input_counts,
                  c10::ScalarType dtype,
                  Timeout timeout);
  void barrier(Timeout timeout);

  // No later collective of this rank; the others are told where they wait for it.
  void leave();
  // Ends the collectives that ranks wait in, this one's too. For any thread.
  void abort();

 private:
  void reduce_whole(std::byte* data, Elements elements, ReduceFunction function);
  void reduce_slices(std::byte* data, Elements elements, ReduceFunction function);
  // The function, after the dtype has been checked.
  ReduceFunction function_for(const CollectiveCall& call) const;

  std::mutex mutex_;
  Rounds rounds_;
};

}  // namespace mistral_ext::parallel
