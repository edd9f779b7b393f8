#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "mistral_ext/cache/row_moves.h"

namespace mistral_ext::cache {

// Where the keys that one forward pass attends to stand, before that pass is made.
struct KeyExtent {
  int64_t first_position = 0;  // position of the oldest visible key
  int64_t length = 0;          // keys, the new ones included
  int64_t rotation = 0;        // the oldest key is at this slot; slots wrap round
};

// Keys and values of one layer.
//
// Without a window the buffer grows by doubling, and appending n tokens writes n slots.
//
// With a window W it is a ring: it grows up to W slots and then a new token takes the place of the
// oldest. For W = 4 and one token at a time (digits are positions):
//
//   after 3      0 1 2 .
//   after 4      0 1 2 3
//   after 5      4 1 2 3     rotation 1: the oldest of the visible keys is in slot 1
//   after 6      4 5 2 3     rotation 2
//
// A single query may read the ring as it lies: softmax does not care for the order, and every slot
// is in its window. A chunk of several tokens may not, since its first queries still need keys that
// its last ones overwrite; it attends to [the last W - 1 keys in order, the chunk] and is then
// written.
//
// Where gradients are recorded, or after record_past(), nothing is overwritten: new tensors are
// made by concatenation, and with record_past() none is dropped until drop_last().
class KVCacheLayer {
 public:
  // window: 0 for full attention.
  explicit KVCacheLayer(int64_t window = 0) : window_(window) {}

  // A copy would write into the same slots: clone() has its own.
  KVCacheLayer(const KVCacheLayer&) = delete;
  KVCacheLayer& operator=(const KVCacheLayer&) = delete;
  KVCacheLayer(KVCacheLayer&&) = default;
  KVCacheLayer& operator=(KVCacheLayer&&) = default;
  ~KVCacheLayer() = default;
  KVCacheLayer clone() const;

  struct KeyValue {
    at::Tensor key;    // [batch, keys, kv_heads, head_dim]
    at::Tensor value;  // the same
  };

  // Appends key and value, [batch, new, kv_heads, head_dim], and returns what the queries of the
  // new tokens attend to: `extent(new)` describes its order. Throws ValueError where batch, heads,
  // dtype or device differ from what the cache holds; one that has seen nothing takes any.
  //   differentiable: the graph through the cache is wanted.
  KeyValue update(const at::Tensor& key, const at::Tensor& value, bool differentiable = false);

  // For one who writes single tokens into the buffers as update() would, on the device. Makes room
  // for one token at least. Only where is_plain().
  struct Slots {
    at::Tensor key;    // [batch, kv_heads, capacity, head_dim], contiguous
    at::Tensor value;  // the same
    int64_t next;      // the next token's; those behind it follow, round the ring
    int64_t stored;    // slots that hold tokens, from the first on
    int64_t room;      // tokens that may be written before the buffers have to grow
  };
  Slots slots();
  // That so many tokens have been written there.
  void appended(int64_t tokens);
  // Holds tokens, in buffers that may be written into in place.
  bool is_plain() const {
    return key_.defined() && !requires_grad() && !records_past_ &&
           (window_ == 0 || capacity() <= window_);
  }

  // What update() of `new_tokens` will return.
  KeyExtent extent(int64_t new_tokens, bool differentiable = false) const;

  // A graph hangs on the contents.
  bool requires_grad() const {
    return key_.defined() && (key_.requires_grad() || value_.requires_grad());
  }

  // Makes room for `tokens` in all (never more than a window needs), so that later appends allocate
  // nothing. Takes effect at the first update where the cache is still empty.
  void reserve(int64_t tokens);

  // The tokens seen, dropped ones included.
  int64_t seen() const { return seen_; }
  int64_t window() const { return window_; }
  bool is_initialized() const { return key_.defined(); }
  int64_t batch_size() const { return key_.defined() ? key_.size(0) : 0; }
  // Slots allocated.
  int64_t capacity() const { return key_.defined() ? key_.size(2) : 0; }
  // Bytes allocated for keys and values.
  int64_t nbytes() const;

  // What a later token can still see, oldest first: [batch, kv_heads, kept, head_dim], at most
  // window - 1 of them (all while past is recorded). A view where the slots are in order.
  at::Tensor keys() const { return ordered(key_, kept()); }
  at::Tensor values() const { return ordered(value_, kept()); }

  // Replaces the contents by copies: key and value are [batch, kv_heads, kept, head_dim], the last
  // of `seen` tokens (all of them without a window); of those, what a window needs is kept.
  void assign(const at::Tensor& key, const at::Tensor& value, int64_t seen);

  // Forgets the newest `tokens`. Throws RuntimeError where a window has already overwritten what
  // would become visible again.
  void drop_last(int64_t tokens);
  // The check that drop_last makes first.
  void check_drop(int64_t tokens) const;

  // Keeps everything until the next drop_last (assisted decoding rolls back), which then trims to
  // what the window needs. record_past(false) trims too, and later tokens are overwritten again.
  void record_past(bool record = true);
  bool records_past() const { return records_past_; }

  // Batch rows: row i becomes the old row indices[i]. int64, any device. Where their number stays,
  // rows move in place, and one that stays is not touched.
  void select_rows(const at::Tensor& indices);
  void move_rows(std::span<const RowMove> moves);
  void repeat_rows(int64_t repeats);

  // Empties the cache and keeps the memory that a new sequence can use.
  void reset();

 private:
  int64_t kept() const;
  at::Tensor ordered(const at::Tensor& buffer, int64_t newest) const;
  void check_fits(const at::Tensor& key, const at::Tensor& value) const;
  bool is_like(const at::Tensor& key) const;
  void ensure_capacity(int64_t slots, const at::Tensor& like);
  void make_writable();
  void copy_buffers();
  void write(const at::Tensor& key, const at::Tensor& value);
  void count_written(int64_t tokens);
  KeyValue concatenate(const at::Tensor& key, const at::Tensor& value);
  void trim();
  KeyValue append_chunk_to_full_ring(const at::Tensor& key, const at::Tensor& value);

  int64_t window_;
  int64_t seen_ = 0;    // tokens seen
  int64_t stored_ = 0;  // of those, still in the buffer
  int64_t start_ = 0;   // slot of the oldest stored one
  int64_t reserved_ = 0;
  bool records_past_ = false;
  bool borrowed_ = false;  // others may hold the buffers: rows must not move in them
  at::Tensor key_;         // [batch, kv_heads, capacity, head_dim]
  at::Tensor value_;
};

}  // namespace mistral_ext::cache
