#pragma once

// Which keys of a block a row sees, as a bias on its scores: 0, a number of the additive mask, or
// -inf where the key is hidden.

#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/attention_softmax.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

// A value of an additive mask that hides a key, as does anything below it: the type's lowest
// finite.
inline double lowest(const double*) { return -1.7976931348623157e308; }
inline float lowest(const float*) { return -3.4028234663852886e38f; }
inline float lowest(const bfloat16*) { return -3.3895313892515355e38f; }
inline float lowest(const float16*) { return -65504.0f; }

// bias[j] += mask[j] log2 e. What overflows there is still a number: only the lowest value hides.
template <typename M>
inline void add_mask(const M* mask, int64_t stride, int64_t n, float* bias) {
  for (int64_t j = 0; j < n; ++j) {
    const auto value = to_float(mask[j * stride]);
    auto scaled = value * decltype(value)(1.44269504088896341);
    const float least = lowest(static_cast<const float*>(nullptr));
    scaled = scaled < least ? least : scaled;
    bias[j] += value <= lowest(mask) ? kNegativeInfinity : static_cast<float>(scaled);
  }
}

// The visibility of one block of keys at a time for the queries of a unit.
class BlockMask {
 public:
  BlockMask(const AttentionArgs& args, const AttentionUnit& unit) : args_(args), unit_(unit) {
    if (args.sequence_ids != nullptr) {
      ids_ = args.sequence_ids + unit.batch * args.sequence_strides[0];
      const int64_t offset = args.offset();
      range_of_ids(
          offset + unit.query_begin, offset + unit.query_end, query_least_, query_largest_);
    }
  }

  // The keys that any query of the unit may see, by causality and the window.
  int64_t first_key() const {
    const int64_t first = args_.first_key(unit_.query_begin);
    return first > unit_.key_begin ? first : unit_.key_begin;
  }
  int64_t end_key() const {
    const int64_t end = args_.end_key(unit_.query_end - 1);
    return end < unit_.key_end ? end : unit_.key_end;
  }

  // Goes to keys [begin, end), at most kAttentionKeys. False where all queries can skip them.
  bool enter(int64_t begin, int64_t end) {
    begin_ = begin;
    end_ = end;
    keys_differ_ = false;
    sequences_differ_ = false;
    if (args_.key_mask != nullptr && !read_key_mask()) return false;
    if (ids_ != nullptr) {
      int64_t least, largest;
      range_of_ids(begin, end, least, largest);
      if (least > query_largest_ || largest < query_least_) return false;
      sequences_differ_ = least != query_largest_ || largest != query_least_;
    }
    return true;
  }

  // Past the last key of the block that a query of [first, last] may see, counted from its begin;
  // 0 where none may.
  int64_t columns(int64_t first, int64_t last) const {
    const int64_t end = args_.end_key(last);
    if (end <= begin_ || args_.first_key(first) >= end_) return 0;
    return (end < end_ ? end : end_) - begin_;
  }

  // Whether some of queries [first, last] do not see all of the block's first `columns`, rounded up
  // to whole vectors, as they are.
  bool needs_bias(int64_t first, int64_t last, int64_t columns) const {
    return keys_differ_ || sequences_differ_ || args_.mask_type != AttentionMaskType::none ||
           columns % kLanes != 0 || args_.first_key(last) > begin_ ||
           args_.end_key(first) < begin_ + columns;
  }

  // Whether two heads' biases differ.
  bool differs_by_head() const {
    return args_.mask_type != AttentionMaskType::none && args_.mask_strides[1] != 0;
  }

  // The bias of a query and head on the first `columns` keys of the block; the rest is -inf.
  void bias(int64_t query, int64_t head, int64_t columns, float* out) const {
    const int64_t from = args_.first_key(query) - begin_;
    const int64_t end = args_.end_key(query) - begin_;
    const int64_t to = end < columns ? end : columns;
    for (int64_t j = 0; j < kAttentionKeys; ++j) {
      out[j] = ((j >= from) & (j < to)) ? 0.0f : kNegativeInfinity;
    }
    if (keys_differ_) {
      for (int64_t j = 0; j < columns; ++j) out[j] += key_bias_[j];
    }
    if (sequences_differ_) {
      const int64_t stride = args_.sequence_strides[1];
      const int64_t own = ids_[(args_.offset() + query) * stride];
      const int64_t* ids = ids_ + begin_ * stride;
      for (int64_t j = 0; j < columns; ++j) {
        out[j] = ids[j * stride] == own ? out[j] : kNegativeInfinity;
      }
    }
    if (args_.mask_type != AttentionMaskType::none) add_full_mask(query, head, columns, out);
  }

 private:
  void range_of_ids(int64_t begin, int64_t end, int64_t& least, int64_t& largest) const {
    const int64_t stride = args_.sequence_strides[1];
    least = largest = ids_[begin * stride];
    for (int64_t j = begin + 1; j < end; ++j) {
      const int64_t id = ids_[j * stride];
      least = id < least ? id : least;
      largest = id > largest ? id : largest;
    }
  }

  // False where every key of the block is hidden.
  bool read_key_mask() {
    const int64_t stride = args_.key_mask_strides[1];
    const uint8_t* mask =
        args_.key_mask + unit_.batch * args_.key_mask_strides[0] + begin_ * stride;
    int64_t visible = 0;
    for (int64_t j = 0; j < end_ - begin_; ++j) {
      visible += mask[j * stride] != 0;
      key_bias_[j] = mask[j * stride] != 0 ? 0.0f : kNegativeInfinity;
    }
    keys_differ_ = visible < end_ - begin_;
    return visible > 0;
  }

  void add_full_mask(int64_t query, int64_t head, int64_t columns, float* out) const {
    const int64_t stride = args_.mask_strides[3];
    const int64_t at = unit_.batch * args_.mask_strides[0] + head * args_.mask_strides[1] +
                       query * args_.mask_strides[2] + begin_ * stride;
    switch (args_.mask_type) {
      case AttentionMaskType::boolean: {
        const uint8_t* mask = static_cast<const uint8_t*>(args_.mask) + at;
        for (int64_t j = 0; j < columns; ++j) {
          out[j] = mask[j * stride] != 0 ? out[j] : kNegativeInfinity;
        }
        return;
      }
      case AttentionMaskType::float64:
        return add_mask(static_cast<const double*>(args_.mask) + at, stride, columns, out);
      case AttentionMaskType::float32:
        return add_mask(static_cast<const float*>(args_.mask) + at, stride, columns, out);
      case AttentionMaskType::bfloat16:
        return add_mask(static_cast<const bfloat16*>(args_.mask) + at, stride, columns, out);
      case AttentionMaskType::float16:
        return add_mask(static_cast<const float16*>(args_.mask) + at, stride, columns, out);
      default:
        return;
    }
  }

  const AttentionArgs& args_;
  const AttentionUnit& unit_;
  const int64_t* ids_ = nullptr;  // of the batch's row
  int64_t query_least_ = 0, query_largest_ = 0;
  int64_t begin_ = 0, end_ = 0;
  bool keys_differ_ = false, sequences_differ_ = false;
  float key_bias_[kAttentionKeys];
};

// The biases of R consecutive rows (row = query * group + head) of a unit, worked out once for rows
// that share them.
template <int R>
class BiasRows {
 public:
  // Rows [row, row + R) of the unit, those past `rows` repeating the last one.
  const float* const* fill(const AttentionArgs& args,
                           const AttentionUnit& unit,
                           const BlockMask& mask,
                           int64_t row,
                           int64_t rows,
                           int64_t columns) {
    const int64_t group = args.group();
    int64_t previous = -1;
    for (int r = 0; r < R; ++r) {
      const int64_t own = row + r < rows ? row + r : rows - 1;
      const int64_t query = unit.query_begin + own / group;
      const bool same = r > 0 && (mask.differs_by_head() ? row + r >= rows : query == previous);
      if (same) {
        rows_[r] = rows_[r - 1];
        continue;
      }
      mask.bias(query, unit.kv_head * group + own % group, columns, values_[r]);
      rows_[r] = values_[r];
      previous = query;
    }
    return rows_;
  }

 private:
  float values_[R][kAttentionKeys];
  const float* rows_[R];
};

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
