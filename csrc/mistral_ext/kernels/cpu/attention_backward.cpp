#include "mistral_ext/kernels/cpu/attention_backward.h"

#include "mistral_ext/kernels/cpu/attention_mask.h"
#include "mistral_ext/kernels/cpu/attention_pack.h"
#include "mistral_ext/kernels/cpu/attention_rows.h"
#include "mistral_ext/kernels/cpu/attention_softmax.h"
#include "mistral_ext/kernels/cpu/attention_tile.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

using Step = FloatStep<float>;

// Rows of weights stand so far apart: a tile that takes columns as its rows reads past the last
// key.
constexpr int64_t kWeightsRow = kAttentionKeys + 16;

// Keys and values of a block, columns first: [head_dim][kAttentionKeys].
struct PackedBlock {
  float* keys;
  float* values;

  template <typename T>
  void pack(const AttentionArgs& args, const AttentionUnit& unit, int64_t begin, int64_t end) {
    const auto transpose_into = [&](const AttentionTensor& x, float* to) {
      pack_transposed<Singles<T>>(key_row<T>(x, unit, begin),
                                  x.token_stride,
                                  end - begin,
                                  args.head_dim,
                                  reinterpret_cast<uint32_t*>(to));
    };
    transpose_into(args.key, keys);
    transpose_into(args.value, values);
  }
};

// The rows of queries that a step works on, and what is kept of each.
struct QueryRows {
  int64_t padded;
  float* query;
  float* grad_output;
  float* logsumexp;  // times log2 e; +inf for a row that sees nothing, whose weights are then 0
  float* inner;

  QueryRows(Scratch& scratch, int64_t rows, int64_t head_dim)
      : padded(attention_padded(head_dim)),
        query(scratch.take(rows * padded)),
        grad_output(scratch.take(rows * padded)),
        logsumexp(scratch.take(rows)),
        inner(scratch.take(rows)) {}

  template <typename T>
  void gather(const AttentionBackwardArgs& args,
              const AttentionUnit& unit,
              int64_t rows,
              int64_t padded_rows) const {
    gather_rows<T>(args.forward.query, args.forward, unit, padded_rows, query, padded);
    gather_rows<T>(args.grad_output, args.forward, unit, padded_rows, grad_output, padded);
    for (int64_t row = 0; row < padded_rows; ++row) {
      const int64_t at = row < rows ? row_index(args.forward, unit, row) : 0;
      const float own = row < rows ? args.logsumexp[at] : kNegativeInfinity;
      logsumexp[row] = own == kNegativeInfinity ? __builtin_inff() : own * kLog2E;
      inner[row] = row < rows ? args.inner[at] : 0.0f;
    }
  }
};

// Weights and gradients of the raw scores of one tile of rows, `columns` keys from the block's
// first.
void tile_gradients(const AttentionArgs& args,
                    const QueryRows& rows,
                    int64_t row,
                    const PackedBlock& block,
                    const float* const* bias,
                    int64_t columns,
                    float* weights,
                    float* grad_scores) {
  const int64_t vectors = (columns + kLanes - 1) / kLanes;
  const auto multiply = [&](const float* a, const float* b, float* c) {
    multiply_rows<Step, kTileRows, Start::kZero>(a + row * rows.padded,
                                                 rows.padded,
                                                 1,
                                                 b,
                                                 kAttentionKeys,
                                                 args.head_dim,
                                                 c,
                                                 kWeightsRow,
                                                 vectors);
  };
  multiply(rows.query, block.keys, weights);
  multiply(rows.grad_output, block.values, grad_scores);
  const float scale = static_cast<float>(args.scale);
  const float log2_scale = static_cast<float>(args.scale * 1.44269504088896341);
  for (int64_t r = 0; r < kTileRows; ++r) {
    float* weight_row = weights + r * kWeightsRow;
    float* grad_row = grad_scores + r * kWeightsRow;
    const vfloat logsumexp = broadcast(rows.logsumexp[row + r]);
    const vfloat inner = broadcast(rows.inner[row + r]);
    for (int64_t j = 0; j < vectors * kLanes; j += kLanes) {
      vfloat score = load(weight_row + j) * log2_scale;
      if (bias != nullptr) score += load(bias[r] + j);
      const vfloat exponent = score - logsumexp;
      // At most 0 but for rounding, which a great bias makes great.
      const vfloat weight = exp2_of_negative(exponent > 0.0f ? vfloat{} : exponent);
      store(weight_row + j, weight);
      store(grad_row + j, weight * (load(grad_row + j) - inner) * scale);
    }
  }
}

// The same for the rows from `row` of a unit with its mask, or nothing and 0 where no key of the
// block is visible; else returns the columns that were written.
int64_t masked_tile_gradients(const AttentionArgs& args,
                              const AttentionUnit& unit,
                              const BlockMask& mask,
                              const QueryRows& queries,
                              int64_t row,
                              int64_t rows,
                              const PackedBlock& block,
                              float* weights,
                              float* grad_scores) {
  const int64_t group = args.group();
  const int64_t last = row + kTileRows < rows ? row + kTileRows - 1 : rows - 1;
  const int64_t first_query = unit.query_begin + row / group;
  const int64_t last_query = unit.query_begin + last / group;
  const int64_t columns = mask.columns(first_query, last_query);
  if (columns == 0) return 0;
  BiasRows<kTileRows> biases;
  const float* const* bias = nullptr;
  if (mask.needs_bias(first_query, last_query, columns)) {
    bias = biases.fill(args, unit, mask, row, rows, columns);
  }
  tile_gradients(args, queries, row, block, bias, columns, weights, grad_scores);
  return columns;
}

}  // namespace

template <typename T>
void attention_inner(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  const AttentionArgs& forward = args.forward;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t batch = token / forward.query_len;
    const int64_t query = token % forward.query_len;
    const auto row = [&](const AttentionTensor& x, int64_t head) {
      return static_cast<const T*>(x.data) + batch * x.batch_stride + query * x.token_stride +
             head * x.head_stride;
    };
    for (int64_t head = 0; head < forward.heads; ++head) {
      const T* output = row(args.output, head);
      const T* gradient = row(args.grad_output, head);
      vfloat total{};
      int64_t c = 0;
      for (; c + kLanes <= forward.head_dim; c += kLanes) {
        total += load(output + c) * load(gradient + c);
      }
      if (c < forward.head_dim) {
        const int64_t left = forward.head_dim - c;
        total += load_partial(output + c, left) * load_partial(gradient + c, left);
      }
      args.inner[(batch * forward.heads + head) * forward.query_len + query] = sum(total);
    }
  }
}

template <typename T>
void attention_backward_query(const AttentionBackwardArgs& args,
                              const AttentionUnit& unit,
                              float* memory) {
  const AttentionArgs& forward = args.forward;
  const int64_t rows = (unit.query_end - unit.query_begin) * forward.group();
  const int64_t padded_rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
  Scratch scratch(memory);
  const QueryRows queries(scratch, padded_rows, forward.head_dim);
  const int64_t padded = queries.padded;
  float* const grad_query = scratch.take(padded_rows * padded);
  PackedBlock block{scratch.take(kAttentionKeys * padded), scratch.take(kAttentionKeys * padded)};
  float* const keys = scratch.take(kAttentionKeys * padded);
  float* const weights = scratch.take(kTileRows * kWeightsRow);
  float* const grad_scores = scratch.take(kTileRows * kWeightsRow);
  queries.gather<T>(args, unit, rows, padded_rows);
  std::memset(grad_query, 0, padded_rows * padded * sizeof(float));

  BlockMask mask(forward, unit);
  const int64_t end_key = mask.end_key();
  int64_t begin = mask.first_key() / kAttentionKeys * kAttentionKeys;
  for (; begin < end_key; begin += kAttentionKeys) {
    const int64_t end = begin + kAttentionKeys < end_key ? begin + kAttentionKeys : end_key;
    if (!mask.enter(begin, end)) continue;
    block.pack<T>(forward, unit, begin, end);
    pack_rows(key_row<T>(forward.key, unit, begin),
              forward.key.token_stride,
              end - begin,
              forward.head_dim,
              keys,
              padded);
    for (int64_t row = 0; row < rows; row += kTileRows) {
      const int64_t columns = masked_tile_gradients(
          forward, unit, mask, queries, row, rows, block, weights, grad_scores);
      if (columns == 0) continue;
      multiply_rows<Step, kTileRows, Start::kKeep>(grad_scores,
                                                   kWeightsRow,
                                                   1,
                                                   keys,
                                                   padded,
                                                   columns,
                                                   grad_query + row * padded,
                                                   padded,
                                                   (forward.head_dim + kLanes - 1) / kLanes);
    }
  }
  const int64_t group = forward.group();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = unit.batch * forward.query_len + unit.query_begin + row / group;
    const int64_t head = unit.kv_head * group + row % group;
    T* to = static_cast<T*>(args.grad_query) + (token * forward.heads + head) * forward.head_dim;
    store_row(grad_query + row * padded, 1.0f, forward.head_dim, to);
  }
}

template <typename T>
void attention_backward_key(const AttentionBackwardArgs& args,
                            const AttentionUnit& keys,
                            float* memory) {
  const AttentionArgs& forward = args.forward;
  const int64_t step = attention_step_queries(forward);
  const int64_t step_rows = (step * forward.group() + kTileRows - 1) / kTileRows * kTileRows;
  // A tile's worth of keys more than there are: the last tile of rows is whole.
  constexpr int64_t kRows = (kAttentionKeys + kTileRows - 1) / kTileRows * kTileRows;
  static_assert(kRows <= kWeightsRow);
  Scratch scratch(memory);
  const QueryRows queries(scratch, step_rows, forward.head_dim);
  const int64_t padded = queries.padded;
  PackedBlock block{scratch.take(kAttentionKeys * padded), scratch.take(kAttentionKeys * padded)};
  float* const grad_key = scratch.take(kRows * padded);
  float* const grad_value = scratch.take(kRows * padded);
  float* const weights = scratch.take(step_rows * kWeightsRow);
  float* const grad_scores = scratch.take(step_rows * kWeightsRow);
  block.pack<T>(forward, keys, keys.key_begin, keys.key_end);
  std::memset(grad_key, 0, kRows * padded * sizeof(float));
  std::memset(grad_value, 0, kRows * padded * sizeof(float));
  std::memset(weights, 0, step_rows * kWeightsRow * sizeof(float));
  std::memset(grad_scores, 0, step_rows * kWeightsRow * sizeof(float));

  // Queries before the first key see none of the block when causal, nor do those a window further.
  int64_t first = forward.is_causal ? keys.key_begin - forward.offset() : 0;
  first = first > 0 ? first / step * step : 0;
  AttentionUnit unit = keys;
  for (; first < forward.query_len && forward.first_key(first) < keys.key_end; first += step) {
    unit.query_begin = first;
    unit.query_end = first + step < forward.query_len ? first + step : forward.query_len;
    BlockMask mask(forward, unit);
    if (!mask.enter(keys.key_begin, keys.key_end)) continue;
    const int64_t rows = (unit.query_end - unit.query_begin) * forward.group();
    const int64_t padded_rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
    queries.gather<T>(args, unit, rows, padded_rows);
    for (int64_t row = 0; row < rows; row += kTileRows) {
      float* const weight_rows = weights + row * kWeightsRow;
      float* const grad_rows = grad_scores + row * kWeightsRow;
      const int64_t columns = masked_tile_gradients(
          forward, unit, mask, queries, row, rows, block, weight_rows, grad_rows);
      const int64_t written = (columns + kLanes - 1) / kLanes * kLanes;
      for (int64_t r = 0; r < kTileRows; ++r) {
        const int64_t bytes = (kAttentionKeys - written) * sizeof(float);
        std::memset(weight_rows + r * kWeightsRow + written, 0, bytes);
        std::memset(grad_rows + r * kWeightsRow + written, 0, bytes);
      }
    }
    const int64_t vectors = (forward.head_dim + kLanes - 1) / kLanes;
    const auto add_transposed = [&](const float* a, const float* b, float* c) {
      for (int64_t key = 0; key < keys.key_end - keys.key_begin; key += kTileRows) {
        multiply_rows<Step, kTileRows, Start::kKeep>(
            a + key, 1, kWeightsRow, b, padded, rows, c + key * padded, padded, vectors);
      }
    };
    add_transposed(weights, queries.grad_output, grad_value);
    add_transposed(grad_scores, queries.query, grad_key);
  }
  for (int64_t key = keys.key_begin; key < keys.key_end; ++key) {
    const int64_t at =
        ((keys.batch * forward.key_len + key) * forward.kv_heads + keys.kv_head) * forward.head_dim;
    const int64_t row = (key - keys.key_begin) * padded;
    store_row(grad_key + row, 1.0f, forward.head_dim, static_cast<T*>(args.grad_key) + at);
    store_row(grad_value + row, 1.0f, forward.head_dim, static_cast<T*>(args.grad_value) + at);
  }
}

#define MISTRAL_EXT_INSTANTIATE(T)                                                  \
  template void attention_inner<T>(const AttentionBackwardArgs&, int64_t, int64_t); \
  template void attention_backward_query<T>(                                        \
      const AttentionBackwardArgs&, const AttentionUnit&, float*);                  \
  template void attention_backward_key<T>(                                          \
      const AttentionBackwardArgs&, const AttentionUnit&, float*);
MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
