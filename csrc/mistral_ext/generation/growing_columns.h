#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace mistral_ext::generation {

// A tensor [batch, length] that gains a column at a time; its memory doubles as it grows. Views
// given out keep their values.
class GrowingColumns {
 public:
  explicit GrowingColumns(const at::Tensor& columns) : length_(columns.size(1)) {
    grow(columns, length_ + kFirstColumns);
  }

  // column: [batch] or [1]
  void append(const at::Tensor& column) {
    if (length_ == buffer_.size(1)) grow(all(), 2 * length_);
    buffer_.select(1, length_++).copy_(column);
  }

  // columns: [batch, n]
  void append_all(const at::Tensor& columns) {
    const int64_t count = columns.size(1);
    if (length_ + count > buffer_.size(1)) grow(all(), std::max(2 * length_, length_ + count));
    buffer_.narrow(1, length_, count).copy_(columns);
    length_ += count;
  }

  int64_t length() const { return length_; }
  at::Tensor all() const { return buffer_.narrow(1, 0, length_); }
  at::Tensor first(int64_t columns) const { return buffer_.narrow(1, 0, columns); }
  at::Tensor last() const { return buffer_.narrow(1, length_ - 1, 1); }

 private:
  static constexpr int64_t kFirstColumns = 256;

  void grow(const at::Tensor& columns, int64_t capacity) {
    auto buffer = at::empty({columns.size(0), capacity}, columns.options());
    buffer.narrow(1, 0, length_).copy_(columns);
    buffer_ = std::move(buffer);
  }

  int64_t length_;
  at::Tensor buffer_;
};

}  // namespace mistral_ext::generation
