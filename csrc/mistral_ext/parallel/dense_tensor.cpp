#include "mistral_ext/parallel/dense_tensor.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <sstream>

#include "mistral_ext/core/check.h"

namespace mistral_ext::parallel {
namespace {

std::string text_of(c10::Device device, c10::Layout layout) {
  std::ostringstream text;
  text << "a tensor on " << device << " with layout " << layout;
  return text.str();
}

}  // namespace

DenseTensor::DenseTensor(Collective collective,
                         const char* argument,
                         const at::Tensor& tensor,
                         Use use)
    : tensor_(tensor) {
  MISTRAL_EXT_CHECK(tensor.defined() && tensor.is_cpu() && tensor.layout() == c10::kStrided,
                    "{}: {} must be a dense tensor on the CPU, got {}",
                    name_of(collective),
                    argument,
                    tensor.defined() ? text_of(tensor.device(), tensor.layout()) : "none");
  MISTRAL_EXT_CHECK(!tensor.is_conj() && !tensor.is_neg(),
                    "{}: {} must be resolved (resolve_conj, resolve_neg), got a view that is not",
                    name_of(collective),
                    argument);
  if (tensor.is_contiguous()) {
    dense_ = tensor;
    return;
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  dense_ = use == Use::write ? at::empty(tensor.sizes(), tensor.options()) : tensor.contiguous();
}

void DenseTensor::store() {
  if (dense_.is_same(tensor_)) return;
  const at::AutoDispatchBelowADInplaceOrView guard;
  tensor_.copy_(dense_);
}

DenseTensors::DenseTensors(Collective collective,
                           const char* argument,
                           const std::vector<at::Tensor>& tensors,
                           int count,
                           c10::ScalarType dtype,
                           Use use) {
  MISTRAL_EXT_CHECK(static_cast<int64_t>(tensors.size()) == count,
                    "{}: {} must be {} tensors, one for each rank, got {}",
                    name_of(collective),
                    argument,
                    count,
                    tensors.size());
  for (const auto& tensor : tensors) {
    const auto& dense = tensors_.emplace_back(collective, argument, tensor, use);
    const auto elements = dense.elements();
    MISTRAL_EXT_CHECK(elements.dtype == dtype,
                      "{}: {} must all have dtype {}, got {}",
                      name_of(collective),
                      argument,
                      c10::toString(dtype),
                      c10::toString(elements.dtype));
    data_.push_back(dense.data());
    counts_.push_back(elements.count);
  }
}

void DenseTensors::check_counts(Collective collective, const char* argument, int64_t count) const {
  for (const auto found : counts_) {
    MISTRAL_EXT_CHECK(found == count,
                      "{}: {} must have {} elements each, got {}",
                      name_of(collective),
                      argument,
                      count,
                      found);
  }
}

void DenseTensors::store() {
  for (auto& tensor : tensors_) tensor.store();
}

void check_single(Collective collective, const char* argument, size_t size) {
  MISTRAL_EXT_CHECK(
      size == 1, "{}: {} must hold one entry, got {}", name_of(collective), argument, size);
}

}  // namespace mistral_ext::parallel
