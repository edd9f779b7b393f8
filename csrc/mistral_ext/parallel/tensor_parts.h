#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mistral_ext/parallel/dense_tensor.h"

namespace mistral_ext::parallel {

// One tensor as consecutive parts, one for each rank.
class TensorParts {
 public:
  // Equal parts. Throws ValueError where the tensor does not consist of `size` times `part`.
  TensorParts(Collective collective,
              const char* argument,
              const DenseTensor& whole,
              Elements part,
              int size);
  // splits[i] rows, entries of the first dimension, for rank i; the same for all where it is empty.
  // Throws ValueError where that does not add up.
  TensorParts(Collective collective,
              const char* argument,
              const DenseTensor& whole,
              const std::vector<int64_t>& splits,
              int size);

  std::span<void* const> data() const { return data_; }
  std::span<const void* const> inputs() const { return {data_.data(), data_.size()}; }
  std::span<const int64_t> counts() const { return counts_; }

 private:
  void find_starts(const DenseTensor& whole);

  std::vector<int64_t> counts_;
  std::vector<void*> data_;
};

}  // namespace mistral_ext::parallel
