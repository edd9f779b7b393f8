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

// `length` entries from `start` on along one dimension.
struct TensorPart {
  int64_t dim = 0;
  int64_t start = 0;
  int64_t length = 0;
};

// Tensors by name, in a checkpoint. What they are is known at once; their bytes are touched when
// one is asked for, and of a part no others than its own. Any number of threads may read from one
// source at once; what they write into the tensors that share its memory is theirs to order.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Sorted.
  virtual std::vector<std::string> names() const = 0;

  // Null where there is no such tensor.
  virtual const TensorInfo* find(const std::string& name) const = 0;

  // "load: <path>", what messages about a tensor begin with: the path of the file that holds it, or
  // for one that is not there, of what says which are.
  virtual const std::string& label_of(const std::string& /*name*/) const { return source_label(); }

  // The tensor as stored, on the CPU, sharing the source's memory where its elements are aligned.
  // Updates in place reach no file, and other tensors of the same name share them. The memory lives
  // as long as a tensor does. Throws ValueError where there is no such tensor.
  virtual at::Tensor tensor(const std::string& name) const = 0;

  // Fills `result`, which is contiguous, of the tensor's shape, or of the part's where one is
  // given, of any dtype and on any device. What is read on the way takes a few MiB. Throws
  // ValueError where there is no such tensor or part, or where the shape is another.
  virtual void read(const std::string& name,
                    const at::Tensor& result,
                    const std::optional<TensorPart>& part) const = 0;

  // A part of `tensor`, sharing its memory: contiguous along the first dimension, else strided.
  // Throws ValueError where the tensor has no such part.
  at::Tensor slice(const std::string& name, const TensorPart& part) const;

  // The tensor, or a part of it, as another dtype or on another device, with memory of its own.
  // Throws ValueError where there is no such tensor or part.
  at::Tensor converted(const std::string& name,
                       at::ScalarType dtype,
                       at::Device device,
                       const std::optional<TensorPart>& part = {}) const;

  // The shape of a tensor or of its part. Throws ValueError where there is none.
  std::vector<int64_t> shape_of(const std::string& name,
                                const std::optional<TensorPart>& part = {}) const;

 protected:
  // "load: <path>", what messages begin with.
  virtual const std::string& source_label() const = 0;
};

}  // namespace mistral_ext::io
