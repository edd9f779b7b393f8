#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace mistral_ext::generation {

// The tokens so far, to be read on the host.
class TokenRows {
 public:
  // input_ids: int64 [rows, length], on any device.
  explicit TokenRows(const at::Tensor& input_ids)
      : ids_(input_ids.stride(1) == 1 ? input_ids.cpu() : input_ids.cpu().contiguous()) {}

  int64_t count() const { return ids_.size(0); }
  int64_t length() const { return ids_.size(1); }
  std::span<const int64_t> operator[](int64_t row) const {
    return {ids_.const_data_ptr<int64_t>() + row * ids_.stride(0), static_cast<size_t>(length())};
  }

 private:
  at::Tensor ids_;
};

}  // namespace mistral_ext::generation
