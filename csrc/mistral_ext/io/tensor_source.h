#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace mistral_ext::io {

struct TensorInfo {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
};

// Tensors by name, in a checkpoint. What they are is known at once; their bytes are touched when
// one is asked for.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Sorted.
  virtual std::vector<std::string> names() const = 0;

  // Null where there is no such tensor.
  virtual const TensorInfo* find(const std::string& name) const = 0;

  // The tensor as stored, on the CPU, sharing the source's memory where its elements are aligned.
  // Updates in place reach no file, and other tensors of the same name share them. The memory lives
  // as long as a tensor does. Throws ValueError where there is no such tensor.
  virtual at::Tensor tensor(const std::string& name) const = 0;

  // The tensor as another dtype or on another device, with memory of its own. What is read on the
  // way takes a few MiB.
  virtual at::Tensor converted(const std::string& name,
                               at::ScalarType dtype,
                               at::Device device) const = 0;
};

}  // namespace mistral_ext::io
