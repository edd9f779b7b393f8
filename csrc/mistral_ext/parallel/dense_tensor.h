#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "mistral_ext/parallel/collective_call.h"
#include "mistral_ext/parallel/shared_collectives.h"

namespace mistral_ext::parallel {

// A tensor's elements one after the other in memory: the tensor's own memory where they lie so,
// else a copy.
class DenseTensor {
 public:
  enum class Use { read, write, update };

  // Throws ValueError where the tensor is not a dense one on the CPU.
  DenseTensor(Collective collective, const char* argument, const at::Tensor& tensor, Use use);

  c10::IntArrayRef sizes() const { return dense_.sizes(); }
  Elements elements() const { return {dense_.scalar_type(), dense_.numel()}; }
  void* data() const { return dense_.data_ptr(); }

  // Brings what was written to the tensor, where that is not its own memory.
  void store();

 private:
  at::Tensor tensor_;
  at::Tensor dense_;
};

// Several tensors: one for each rank.
class DenseTensors {
 public:
  using Use = DenseTensor::Use;

  // Throws ValueError where there are not `count` tensors of `dtype`.
  DenseTensors(Collective collective,
               const char* argument,
               const std::vector<at::Tensor>& tensors,
               int count,
               c10::ScalarType dtype,
               Use use);

  // Throws ValueError unless each has `count` elements.
  void check_counts(Collective collective, const char* argument, int64_t count) const;

  std::span<void* const> data() const { return data_; }
  std::span<const void* const> inputs() const { return {data_.data(), data_.size()}; }
  std::span<const int64_t> counts() const { return counts_; }
  void store();

 private:
  std::vector<DenseTensor> tensors_;
  std::vector<void*> data_;
  std::vector<int64_t> counts_;
};

// Throws ValueError where a list that holds one thing, as those of c10d do, holds another number.
void check_single(Collective collective, const char* argument, size_t size);

}  // namespace mistral_ext::parallel
