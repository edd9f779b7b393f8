// No attention kernel reads or writes past its arrays, its scratch included: each ends where a page
// begins that the process may not touch.

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/guarded_array.h"
#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/attention_backward.h"
#include "mistral_ext/kernels/cpu/types.h"

namespace mistral_ext::kernels::cpu {
namespace {

constexpr int64_t kBatch = 2, kHeads = 6, kKvHeads = 2;

struct Shape {
  int64_t query_len, key_len, head_dim, window;
};

// Decoding, few rows, whole and partial tiles and blocks, keys that are split, a band.
constexpr Shape kShapes[] = {{1, 1, 16, 0},
                             {1, 70, 20, 0},
                             {2, 70, 64, 5},
                             {1, 600, 8, 0},
                             {7, 65, 33, 0},
                             {20, 20, 64, 0},
                             {70, 130, 24, 40},
                             {70, 70, 1, 0}};

AttentionTensor tensor(const void* data, int64_t tokens, int64_t heads, int64_t head_dim) {
  return {data, tokens * heads * head_dim, heads * head_dim, head_dim};
}

// Everything one call is given, each array against a page of its own.
template <typename T>
struct Call {
  GuardedArray<T> query, key, value, output, grad_output, grad_query, grad_key, grad_value;
  GuardedArray<float> logsumexp, inner, mask;
  GuardedArray<uint8_t> key_mask;
  GuardedArray<int64_t> sequence_ids;
  AttentionArgs args;
  AttentionBackwardArgs backward;

  Call(const Shape& shape, bool masked)
      : query(kBatch * shape.query_len * kHeads * shape.head_dim),
        key(kBatch * shape.key_len * kKvHeads * shape.head_dim),
        value(kBatch * shape.key_len * kKvHeads * shape.head_dim),
        output(kBatch * shape.query_len * kHeads * shape.head_dim),
        grad_output(kBatch * shape.query_len * kHeads * shape.head_dim),
        grad_query(kBatch * shape.query_len * kHeads * shape.head_dim),
        grad_key(kBatch * shape.key_len * kKvHeads * shape.head_dim),
        grad_value(kBatch * shape.key_len * kKvHeads * shape.head_dim),
        logsumexp(kBatch * kHeads * shape.query_len),
        inner(kBatch * kHeads * shape.query_len),
        mask(shape.query_len * shape.key_len),
        key_mask(kBatch * shape.key_len),
        sequence_ids(kBatch * shape.key_len),
        args{.batch = kBatch,
             .query_len = shape.query_len,
             .key_len = shape.key_len,
             .heads = kHeads,
             .kv_heads = kKvHeads,
             .head_dim = shape.head_dim,
             .scale = 0.5,
             .is_causal = true,
             .sliding_window = shape.window,
             .query = tensor(query.get(), shape.query_len, kHeads, shape.head_dim),
             .key = tensor(key.get(), shape.key_len, kKvHeads, shape.head_dim),
             .value = tensor(value.get(), shape.key_len, kKvHeads, shape.head_dim)} {
    args.output = output.get();
    args.logsumexp = logsumexp.get();
    if (masked) {
      // Every other key may be seen, and every other of those belongs to the second sequence.
      for (int64_t j = 0; j < kBatch * shape.key_len; ++j) {
        key_mask.get()[j] = j % 2 == 0;
        sequence_ids.get()[j] = j % shape.key_len * 2 >= shape.key_len;
      }
      args.key_mask = key_mask.get();
      args.key_mask_strides[0] = shape.key_len;
      args.key_mask_strides[1] = 1;
      args.mask_type = AttentionMaskType::float32;
      args.mask = mask.get();
      args.mask_strides[2] = shape.key_len;
      args.mask_strides[3] = 1;
      args.sequence_ids = sequence_ids.get();
      args.sequence_strides[0] = shape.key_len;
      args.sequence_strides[1] = 1;
    }
    backward = {.forward = args,
                .output = tensor(output.get(), shape.query_len, kHeads, shape.head_dim),
                .grad_output = tensor(grad_output.get(), shape.query_len, kHeads, shape.head_dim),
                .logsumexp = logsumexp.get(),
                .inner = inner.get(),
                .grad_query = grad_query.get(),
                .grad_key = grad_key.get(),
                .grad_value = grad_value.get()};
  }
};

#define MISTRAL_EXT_RUN(LEVEL)                                                                    \
  template <typename T>                                                                           \
  void run_##LEVEL(const Shape& shape, bool masked) {                                             \
    Call<T> call(shape, masked);                                                                  \
    const AttentionPlan plan(call.args);                                                          \
    const int64_t rows = plan.rows_per_unit(call.args);                                           \
    GuardedArray<float> scratch(attention_forward_scratch(rows, shape.head_dim));                 \
    const int64_t partial_size = attention_partial_size(rows, shape.head_dim);                    \
    GuardedArray<float> partials(plan.units() * partial_size);                                    \
    for (int64_t i = 0; i < plan.units(); ++i) {                                                  \
      float* const partial = plan.splits > 1 ? partials.get() + i * partial_size : nullptr;       \
      LEVEL::attention_forward<T>(call.args, plan.unit(i), scratch.get(), partial);               \
    }                                                                                             \
    for (int64_t i = 0; plan.splits > 1 && i < plan.units(); i += plan.splits) {                  \
      LEVEL::attention_combine<T>(                                                                \
          call.args, plan.unit(i), plan.splits, partials.get() + i * partial_size, partial_size); \
    }                                                                                             \
    LEVEL::attention_inner<T>(call.backward, 0, kBatch * shape.query_len);                        \
    AttentionPlan whole = plan;                                                                   \
    whole.splits = 1;                                                                             \
    whole.split_keys = shape.key_len;                                                             \
    GuardedArray<float> for_queries(attention_backward_query_scratch(rows, shape.head_dim));      \
    for (int64_t i = 0; i < whole.units(); ++i) {                                                 \
      LEVEL::attention_backward_query<T>(call.backward, whole.unit(i), for_queries.get());        \
    }                                                                                             \
    GuardedArray<float> for_keys(attention_backward_key_scratch(call.args));                      \
    for (int64_t row = 0; row < kBatch; ++row) {                                                  \
      for (int64_t head = 0; head < kKvHeads; ++head) {                                           \
        for (int64_t begin = 0; begin < shape.key_len; begin += kAttentionKeys) {                 \
          const int64_t end = std::min(begin + kAttentionKeys, shape.key_len);                    \
          LEVEL::attention_backward_key<T>(                                                       \
              call.backward, {row, head, 0, 0, begin, end}, for_keys.get());                      \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
  }                                                                                               \
  TEST(AttentionGuardPage, IsNotTouchedAtLevel_##LEVEL) {                                         \
    if (Level::LEVEL > machine_level()) GTEST_SKIP() << "this machine lacks " #LEVEL;             \
    for (const Shape& shape : kShapes) {                                                          \
      for (const bool masked : {false, true}) {                                                   \
        run_##LEVEL<float>(shape, masked);                                                        \
        run_##LEVEL<bfloat16>(shape, masked);                                                     \
        run_##LEVEL<float16>(shape, masked);                                                      \
      }                                                                                           \
    }                                                                                             \
  }
MISTRAL_EXT_FOR_EACH_LEVEL(MISTRAL_EXT_RUN)
#undef MISTRAL_EXT_RUN

}  // namespace
}  // namespace mistral_ext::kernels::cpu
