#pragma once

// Attention by blocks of keys with the online softmax (Dao et al. 2022, "FlashAttention", arXiv
// 2205.14135): no array of [query_len, key_len] is ever held. What is computed, and which keys a
// query sees, is said in ops/attention.h.

#include <cstdint>

#include "mistral_ext/kernels/cpu/level.h"

namespace mistral_ext::kernels::cpu {

// Keys of a block. Blocks begin at multiples of it whatever the query, so that a row's result does
// not depend on how the work was cut.
inline constexpr int64_t kAttentionKeys = 64;

// Rows of scratch arrays are this much of head_dim, in elements: a multiple of every level's
// vector.
inline int64_t attention_padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// [batch, tokens, heads, head_dim], head_dim contiguous; strides in elements.
struct AttentionTensor {
  const void* data = nullptr;
  int64_t batch_stride = 0, token_stride = 0, head_stride = 0;
};

enum class AttentionMaskType { none, boolean, float64, float32, bfloat16, float16 };

struct AttentionArgs {
  int64_t batch, query_len, key_len, heads, kv_heads, head_dim;
  double scale;
  bool is_causal;
  int64_t sliding_window;
  AttentionTensor query, key, value;

  // [batch, key_len], nonzero is visible; null: none.
  const uint8_t* key_mask = nullptr;
  int64_t key_mask_strides[2] = {};
  // [batch, heads, query_len, key_len], a broadcast dimension has stride 0.
  AttentionMaskType mask_type = AttentionMaskType::none;
  const void* mask = nullptr;
  int64_t mask_strides[4] = {};
  // [batch, key_len]; null: none.
  const int64_t* sequence_ids = nullptr;
  int64_t sequence_strides[2] = {};

  void* output = nullptr;      // [batch, query_len, heads, head_dim], contiguous
  float* logsumexp = nullptr;  // [batch, heads, query_len], contiguous

  int64_t group() const { return heads / kv_heads; }
  // The key slot of query 0.
  int64_t offset() const { return key_len - query_len; }
  // Causality and the window let query i see keys [first_key(i), end_key(i)).
  int64_t first_key(int64_t i) const {
    const int64_t first = sliding_window > 0 ? offset() + i - sliding_window + 1 : 0;
    return first > 0 ? first : 0;
  }
  int64_t end_key(int64_t i) const { return is_causal ? offset() + i + 1 : key_len; }
};

// What one call of a kernel computes: queries [query_begin, query_end) of all the query heads that
// share one key head, over keys [key_begin, key_end). Its rows are (query, head) pairs, the head
// running faster.
struct AttentionUnit {
  int64_t batch, kv_head, query_begin, query_end, key_begin, key_end;
};

// How a forward pass is cut into units. A few rows over many keys (decoding) are cut along the keys
// too, and each unit then leaves a partial result. Depends on the shapes alone, never on the number
// of threads.
struct AttentionPlan {
  int64_t batch, kv_heads, query_len, key_len;
  int64_t block_queries, query_blocks;
  int64_t split_keys, splits;

  explicit AttentionPlan(const AttentionArgs& args);
  int64_t rows_per_unit(const AttentionArgs& args) const { return block_queries * args.group(); }
  int64_t units() const { return query_blocks * batch * kv_heads * splits; }
  // The units with most keys come first. The splits of one group of rows are consecutive.
  AttentionUnit unit(int64_t index) const;
};

// Floats of scratch that a thread needs for units of at most `rows` rows.
int64_t attention_forward_scratch(int64_t rows, int64_t head_dim);

// Floats of one unit's partial result: a row's output before its division, its maximum (times
// log2 e) and its total.
inline int64_t attention_partial_size(int64_t rows, int64_t head_dim) {
  return rows * (attention_padded(head_dim) + 2);
}

#define MISTRAL_EXT_DECLARE_ATTENTION(level)                                               \
  namespace level {                                                                        \
  /* T: float, bfloat16, float16. Writes output and logsumexp, or `partial` if not null.*/ \
  template <typename T>                                                                    \
  void attention_forward(const AttentionArgs& args,                                        \
                         const AttentionUnit& unit,                                        \
                         float* scratch,                                                   \
                         float* partial);                                                  \
  /* Joins the partial results of the `splits` units that follow one another. */           \
  template <typename T>                                                                    \
  void attention_combine(const AttentionArgs& args,                                        \
                         const AttentionUnit& first,                                       \
                         int64_t splits,                                                   \
                         float* partials,                                                  \
                         int64_t partial_size);                                            \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_DECLARE_ATTENTION)
#undef MISTRAL_EXT_DECLARE_ATTENTION

}  // namespace mistral_ext::kernels::cpu
