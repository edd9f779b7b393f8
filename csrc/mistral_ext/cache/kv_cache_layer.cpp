#include "mistral_ext/cache/kv_cache_layer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>

#include "mistral_ext/core/check.h"
#include "mistral_ext/ops/kv_cache_update.h"

namespace mistral_ext::cache {
namespace {

constexpr int64_t kFirstCapacity = 64;

// [batch, seq, heads, head_dim] <-> [batch, heads, seq, head_dim]
at::Tensor swap_heads(const at::Tensor& x) { return x.transpose(1, 2); }

}  // namespace

int64_t KVCacheLayer::kept() const {
  return window_ == 0 || records_past_ ? stored_ : std::min(stored_, window_ - 1);
}

at::Tensor KVCacheLayer::ordered(const at::Tensor& buffer, int64_t newest) const {
  if (!buffer.defined()) return buffer;
  const int64_t capacity = buffer.size(2);
  if (newest == 0) return buffer.narrow(2, 0, 0);
  const int64_t first = (start_ + stored_ - newest) % capacity;
  if (first + newest <= capacity) return buffer.narrow(2, first, newest);
  const int64_t head = capacity - first;
  return at::cat({buffer.narrow(2, first, head), buffer.narrow(2, 0, newest - head)}, 2);
}

KeyExtent KVCacheLayer::extent(int64_t new_tokens, bool differentiable) const {
  const bool bounded = window_ > 0 && !records_past_;
  const int64_t past = bounded ? std::min(stored_, window_ - 1) : stored_;
  KeyExtent extent{seen_ - past, past + new_tokens, 0};
  // One token into a full ring is read in slot order.
  if (bounded && new_tokens == 1 && stored_ >= window_ && !differentiable) {
    extent.rotation = (start_ + 1) % window_;
  }
  return extent;
}

void KVCacheLayer::check_fits(const at::Tensor& key, const at::Tensor& value) const {
  MISTRAL_EXT_CHECK(key.dim() == 4 && key.sizes() == value.sizes(),
                    "cache: key and value must be [batch, seq, kv_heads, head_dim] of one shape, "
                    "got {} and {}",
                    c10::str(key.sizes()),
                    c10::str(value.sizes()));
  MISTRAL_EXT_CHECK(value.scalar_type() == key.scalar_type() && value.device() == key.device(),
                    "cache: value must have key's dtype {} and device {}, got {} and {}",
                    c10::toString(key.scalar_type()),
                    key.device().str(),
                    c10::toString(value.scalar_type()),
                    value.device().str());
  if (!key_.defined() || seen_ == 0) return;
  MISTRAL_EXT_CHECK(
      key.size(0) == key_.size(0), "cache: batch must be {}, got {}", key_.size(0), key.size(0));
  MISTRAL_EXT_CHECK(key.size(2) == key_.size(1) && key.size(3) == key_.size(3),
                    "cache: heads and head_dim must be {} and {}, got {} and {}",
                    key_.size(1),
                    key_.size(3),
                    key.size(2),
                    key.size(3));
  MISTRAL_EXT_CHECK(key.scalar_type() == key_.scalar_type(),
                    "cache: dtype must be {}, got {}",
                    c10::toString(key_.scalar_type()),
                    c10::toString(key.scalar_type()));
  MISTRAL_EXT_CHECK(key.device() == key_.device(),
                    "cache: device must be {}, got {}",
                    key_.device().str(),
                    key.device().str());
}

// Whether the buffers are of the batch, heads, dtype and device of `key`.
bool KVCacheLayer::is_like(const at::Tensor& key) const {
  return key.size(0) == key_.size(0) && key.size(2) == key_.size(1) &&
         key.size(3) == key_.size(3) && key.scalar_type() == key_.scalar_type() &&
         key.device() == key_.device();
}

int64_t KVCacheLayer::nbytes() const {
  if (!key_.defined()) return 0;
  return static_cast<int64_t>(key_.storage().nbytes() + value_.storage().nbytes());
}

KVCacheLayer KVCacheLayer::clone() const {
  KVCacheLayer copy(window_);
  copy.seen_ = seen_;
  copy.stored_ = stored_;
  copy.start_ = start_;
  copy.reserved_ = reserved_;
  copy.records_past_ = records_past_;
  if (key_.defined()) {
    copy.key_ = key_.clone();
    copy.value_ = value_.clone();
  }
  return copy;
}

void KVCacheLayer::reserve(int64_t tokens) {
  reserved_ = std::max(reserved_, tokens);
  if (key_.defined() && !requires_grad()) ensure_capacity(tokens, key_);
}

// Grows by doubling, up to the window. The stored slots are copied in order, so start_ becomes 0.
void KVCacheLayer::ensure_capacity(int64_t slots, const at::Tensor& like) {
  const int64_t limit = window_ > 0 ? window_ : std::max(slots, INT64_C(1) << 62);
  slots = std::min(slots, limit);
  if (key_.defined() && capacity() >= slots) return;
  int64_t target = std::max({slots, reserved_, 2 * capacity(), kFirstCapacity});
  target = std::min(target, limit);
  // In the layout of update()'s arguments heads stand behind the sequence.
  const bool first = !key_.defined();
  const int64_t heads = first ? like.size(2) : key_.size(1);
  const auto grow = [&](const at::Tensor& old) {
    auto grown = at::empty({like.size(0), heads, target, like.size(3)}, like.options());
    if (stored_ > 0) grown.narrow(2, 0, stored_).copy_(ordered(old, stored_));
    return grown;
  };
  auto key = grow(key_);
  auto value = grow(value_);
  key_ = std::move(key);
  value_ = std::move(value);
  start_ = 0;
  borrowed_ = false;
}

// A buffer that a graph still refers to must not be written into, and one made in inference mode
// cannot be outside it.
void KVCacheLayer::make_writable() {
  if (!key_.defined()) return;
  const bool frozen = key_.is_inference() && !c10::InferenceMode::is_enabled();
  if (requires_grad() || frozen) copy_buffers();
}

void KVCacheLayer::copy_buffers() {
  key_ = key_.detach().clone();
  value_ = value_.detach().clone();
  borrowed_ = false;
}

void KVCacheLayer::write(const at::Tensor& key, const at::Tensor& value) {
  ops::kv_cache_update_(key_, value_, key, value, (start_ + stored_) % capacity());
  count_written(key.size(1));
}

void KVCacheLayer::count_written(int64_t tokens) {
  const int64_t size = capacity();
  const int64_t overwritten = std::max<int64_t>(stored_ + tokens - size, 0);
  start_ = (start_ + overwritten) % size;
  stored_ += tokens - overwritten;
}

KVCacheLayer::Slots KVCacheLayer::slots() {
  make_writable();
  ensure_capacity(stored_ + 1, key_);
  key_ = key_.contiguous();
  value_ = value_.contiguous();
  const bool is_ring = window_ > 0 && capacity() == window_;
  const int64_t room = is_ring ? std::numeric_limits<int64_t>::max() : capacity() - stored_;
  return {key_, value_, (start_ + stored_) % capacity(), stored_, room};
}

void KVCacheLayer::appended(int64_t tokens) {
  count_written(tokens);
  seen_ += tokens;
}

KVCacheLayer::KeyValue KVCacheLayer::concatenate(const at::Tensor& key, const at::Tensor& value) {
  const auto join = [&](const at::Tensor& buffer, const at::Tensor& fresh) {
    return buffer.defined() && stored_ > 0
               ? at::cat({ordered(buffer, kept()), swap_heads(fresh)}, 2)
               : swap_heads(fresh);
  };
  const auto all_key = join(key_, key);
  const auto all_value = join(value_, value);
  const int64_t all = all_key.size(2);
  const int64_t keep = window_ == 0 || records_past_ ? all : std::min(all, window_ - 1);
  key_ = all_key.narrow(2, all - keep, keep);
  value_ = all_value.narrow(2, all - keep, keep);
  start_ = 0;
  stored_ = keep;
  borrowed_ = true;
  return {swap_heads(all_key), swap_heads(all_value)};
}

KVCacheLayer::KeyValue KVCacheLayer::append_chunk_to_full_ring(const at::Tensor& key,
                                                               const at::Tensor& value) {
  const int64_t past = std::min(stored_, window_ - 1);
  KeyValue all{key, value};
  if (past > 0) {
    all = {at::cat({swap_heads(ordered(key_, past)), key}, 1),
           at::cat({swap_heads(ordered(value_, past)), value}, 1)};
  }
  make_writable();
  ensure_capacity(window_, key);
  const int64_t count = key.size(1);
  const int64_t last = std::min(count, capacity());
  write(key.narrow(1, count - last, last), value.narrow(1, count - last, last));
  return all;
}

KVCacheLayer::KeyValue KVCacheLayer::update(const at::Tensor& key,
                                            const at::Tensor& value,
                                            bool differentiable) {
  check_fits(key, value);
  if (key_.defined() && seen_ == 0 && !is_like(key)) {
    key_ = at::Tensor();
    value_ = at::Tensor();
  }
  const int64_t count = key.size(1);
  KeyValue visible;
  if (differentiable || records_past_) {
    visible = concatenate(key, value);
  } else if (window_ > 0 && count > 1 && stored_ + count > window_) {
    visible = append_chunk_to_full_ring(key, value);
  } else {
    make_writable();
    ensure_capacity(stored_ + count, key);
    write(key, value);
    visible = {swap_heads(key_.narrow(2, 0, stored_)), swap_heads(value_.narrow(2, 0, stored_))};
  }
  seen_ += count;
  return visible;
}

void KVCacheLayer::assign(const at::Tensor& key, const at::Tensor& value, int64_t seen) {
  MISTRAL_EXT_CHECK(key.dim() == 4 && key.sizes() == value.sizes() && key.size(2) <= seen,
                    "cache: keys and values must be [batch, kv_heads, at most {}, head_dim] of one "
                    "shape, got {} and {}",
                    seen,
                    c10::str(key.sizes()),
                    c10::str(value.sizes()));
  MISTRAL_EXT_CHECK(window_ > 0 || key.size(2) == seen,
                    "cache: without a window the keys must be those of all {} tokens, got {}",
                    seen,
                    key.size(2));
  key_ = key.clone();
  value_ = value.clone();
  start_ = 0;
  stored_ = key.size(2);
  seen_ = seen;
  borrowed_ = false;
  if (!records_past_) trim();
}

// Leaves what the window needs, in order from slot 0, in a buffer that can be a ring again.
void KVCacheLayer::trim() {
  if (window_ == 0 || (stored_ < window_ && capacity() <= window_)) return;
  const int64_t keep = std::min(stored_, window_ - 1);
  key_ = ordered(key_, keep);
  value_ = ordered(value_, keep);
  stored_ = keep;
  start_ = 0;
}

void KVCacheLayer::record_past(bool record) {
  if (records_past_ && !record) trim();
  records_past_ = record;
}

void KVCacheLayer::check_drop(int64_t tokens) const {
  MISTRAL_EXT_CHECK(tokens >= 0 && tokens <= seen_,
                    "cache: the tokens to drop must be between 0 and {}, got {}",
                    seen_,
                    tokens);
  const bool complete = records_past_ && stored_ - tokens >= std::min(seen_ - tokens, window_ - 1);
  const bool lossy = tokens > 0 && stored_ < seen_ && !complete;
  TORCH_CHECK(!lossy,
              "cache: the sliding window of ",
              window_,
              " has already overwritten what dropping ",
              tokens,
              " of ",
              seen_,
              " tokens would make visible again; record the past before (record_past)");
}

void KVCacheLayer::drop_last(int64_t tokens) {
  check_drop(tokens);
  stored_ -= tokens;
  seen_ -= tokens;
  if (records_past_) trim();
}

void KVCacheLayer::select_rows(const at::Tensor& indices) {
  if (!key_.defined()) return;
  if (indices.dim() == 1 && indices.size(0) == batch_size()) {
    const auto sources = indices.to(at::kCPU, at::kLong).contiguous();
    const auto moves =
        plan_row_moves({sources.const_data_ptr<int64_t>(), static_cast<size_t>(sources.numel())});
    if (moves.empty()) return;
    if (!borrowed_ && !requires_grad()) {
      move_rows(moves);
      return;
    }
  }
  const auto rows = indices.to(key_.device());
  key_ = key_.index_select(0, rows);
  value_ = value_.index_select(0, rows);
  borrowed_ = false;
}

void KVCacheLayer::move_rows(std::span<const RowMove> moves) {
  if (!key_.defined() || moves.empty()) return;
  make_writable();
  if (borrowed_) copy_buffers();
  const int64_t oldest = seen_ - stored_;
  for (const auto& buffer : {key_, value_}) {
    at::Tensor scratch;
    const auto row = [&](int64_t index) {
      return index == kScratchRow ? scratch : buffer.select(0, index);
    };
    for (const auto& move : moves) {
      if (move.to == kScratchRow) {
        scratch = row(move.from).clone();
        continue;
      }
      const int64_t skipped = std::clamp<int64_t>(move.first_token - oldest, 0, stored_);
      const int64_t count = stored_ - skipped;
      const int64_t slot = (start_ + skipped) % capacity();
      const int64_t before_wrap = std::min(count, capacity() - slot);
      copy_slots(row(move.from), row(move.to), slot, before_wrap);
      copy_slots(row(move.from), row(move.to), 0, count - before_wrap);
    }
  }
}

void KVCacheLayer::repeat_rows(int64_t repeats) {
  MISTRAL_EXT_CHECK(repeats > 0, "cache: repeats must be positive, got {}", repeats);
  if (!key_.defined()) return;
  key_ = key_.repeat_interleave(repeats, 0);
  value_ = value_.repeat_interleave(repeats, 0);
  borrowed_ = false;
}

void KVCacheLayer::reset() {
  seen_ = 0;
  stored_ = 0;
  start_ = 0;
  const bool is_wide = window_ > 0 && capacity() > window_;  // the past was recorded
  if (requires_grad() || is_wide) {
    key_ = at::Tensor();
    value_ = at::Tensor();
  }
}

}  // namespace mistral_ext::cache
