#include "mistral_ext/kernels/cpu/attention.h"
#include "mistral_ext/kernels/cpu/attention_dot.h"
#include "mistral_ext/kernels/cpu/attention_mask.h"
#include "mistral_ext/kernels/cpu/attention_pack.h"
#include "mistral_ext/kernels/cpu/attention_rows.h"
#include "mistral_ext/kernels/cpu/attention_softmax.h"
#include "mistral_ext/kernels/cpu/attention_tile.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {
namespace {

// How a type is multiplied: widened to fp32, or in pairs where the machine has an instruction.
template <typename T>
struct Product {
  using Step = FloatStep<float>;
  using Elements = Singles<T>;
  // A call of at most so many rows a key head reads keys and values where they lie; with more of
  // them, copies in the multiplication's layout pay.
  static constexpr int64_t kDecodeRows = 16;
};

#if defined(__AVX512BF16__)
template <>
struct Product<bfloat16> {
  using Step = PairStep;
  using Elements = Pairs;
  static constexpr int64_t kDecodeRows = 4;
};
#endif

// The scratch of one unit; every array's rows are head_dim padded, and 4 bytes an element.
struct Workspace {
  int64_t padded;
  float* query;
  float* output;
  SoftmaxRows state;
  float* scores;
  float* weights;
  float* keys;
  float* values;

  Workspace(float* memory, int64_t rows, int64_t head_dim) : padded(attention_padded(head_dim)) {
    Scratch scratch(memory);
    query = scratch.take(rows * padded);
    output = scratch.take(rows * padded);
    state.largest = scratch.take(rows);
    state.totals = scratch.take(rows * kLanes);
    scores = scratch.take(kTileRows * kAttentionKeys);
    weights = scratch.take(kTileRows * kAttentionKeys);
    keys = scratch.take(kAttentionKeys * padded);
    values = scratch.take(kAttentionKeys * padded);
  }
};

// One block of keys for R rows from `row`, keys and values where they lie.
template <typename T, int R>
void decode_rows(const AttentionArgs& args,
                 const AttentionUnit& unit,
                 const BlockMask& mask,
                 const Workspace& work,
                 int64_t begin,
                 int64_t row,
                 int64_t rows,
                 float scale) {
  const int64_t group = args.group();
  const int64_t last = row + R < rows ? row + R - 1 : rows - 1;
  const int64_t first_query = unit.query_begin + row / group;
  const int64_t last_query = unit.query_begin + last / group;
  const int64_t columns = mask.columns(first_query, last_query);
  if (columns == 0) return;
  dot_rows<R>(work.query + row * work.padded,
              work.padded,
              key_row<T>(args.key, unit, begin),
              args.key.token_stride,
              args.head_dim,
              columns,
              work.scores);
  BiasRows<R> biases;
  const float* const* bias = nullptr;
  if (mask.needs_bias(first_query, last_query, columns)) {
    bias = biases.fill(args, unit, mask, row, rows, columns);
  }
  float keep[kRowsPadded<R>];
  const SoftmaxRows state{work.state.largest + row, work.state.totals + row * kLanes};
  softmax_rows<R>(
      work.scores, bias, (columns + kLanes - 1) / kLanes * kLanes, scale, state, work.scores, keep);
  const T* values = key_row<T>(args.value, unit, begin);
  const int64_t vectors = args.head_dim / kLanes;
  float* output = work.output + row * work.padded;
  multiply_rows<FloatStep<T>, R, Start::kScale>(work.scores,
                                                kAttentionKeys,
                                                1,
                                                values,
                                                args.value.token_stride,
                                                columns,
                                                output,
                                                work.padded,
                                                vectors,
                                                keep);
  const int64_t left = args.head_dim - vectors * kLanes;
  if (left == 0) return;
  pack_rows(values + vectors * kLanes, args.value.token_stride, columns, left, work.values, kLanes);
  multiply_rows<FloatStep<float>, R, Start::kScale>(work.scores,
                                                    kAttentionKeys,
                                                    1,
                                                    work.values,
                                                    kLanes,
                                                    columns,
                                                    output + vectors * kLanes,
                                                    work.padded,
                                                    1,
                                                    keep);
}

template <typename T>
void decode_block(const AttentionArgs& args,
                  const AttentionUnit& unit,
                  const BlockMask& mask,
                  const Workspace& work,
                  int64_t begin,
                  int64_t rows,
                  float scale) {
  int64_t row = 0;
  for (; rows - row > 2; row += 4) {
    decode_rows<T, 4>(args, unit, mask, work, begin, row, rows, scale);
  }
  if (rows - row == 2) decode_rows<T, 2>(args, unit, mask, work, begin, row, rows, scale);
  if (rows - row == 1) decode_rows<T, 1>(args, unit, mask, work, begin, row, rows, scale);
}

// One block of keys for all rows of the unit, a tile of rows at a time over packed keys and values.
template <typename T>
void tile_block(const AttentionArgs& args,
                const AttentionUnit& unit,
                const BlockMask& mask,
                const Workspace& work,
                int64_t begin,
                int64_t end,
                int64_t rows,
                float scale) {
  using Step = typename Product<T>::Step;
  using Elements = typename Product<T>::Elements;
  using Element = typename Step::A;
  constexpr int64_t kWidth = Step::kWidth;
  const int64_t padded = work.padded;
  const auto* query = reinterpret_cast<const Element*>(work.query);
  auto* keys = reinterpret_cast<Element*>(work.keys);
  auto* values = reinterpret_cast<Element*>(work.values);
  auto* weights = reinterpret_cast<Element*>(work.weights);
  pack_transposed<Elements>(key_row<T>(args.key, unit, begin),
                            args.key.token_stride,
                            end - begin,
                            args.head_dim,
                            reinterpret_cast<uint32_t*>(keys));
  if constexpr (kWidth == 2) {
    pack_row_pairs(key_row<T>(args.value, unit, begin),
                   args.value.token_stride,
                   end - begin,
                   args.head_dim,
                   values,
                   padded);
  } else {
    pack_rows(key_row<T>(args.value, unit, begin),
              args.value.token_stride,
              end - begin,
              args.head_dim,
              values,
              padded);
  }
  const int64_t group = args.group();
  for (int64_t row = 0; row < rows; row += kTileRows) {
    const int64_t last = row + kTileRows < rows ? row + kTileRows - 1 : rows - 1;
    const int64_t first_query = unit.query_begin + row / group;
    const int64_t last_query = unit.query_begin + last / group;
    const int64_t columns = mask.columns(first_query, last_query);
    if (columns == 0) continue;
    const int64_t vectors = (columns + kLanes - 1) / kLanes;
    multiply_rows<Step, kTileRows, Start::kZero>(query + row * padded,
                                                 padded,
                                                 kWidth,
                                                 keys,
                                                 kAttentionKeys * kWidth,
                                                 (args.head_dim + kWidth - 1) / kWidth,
                                                 work.scores,
                                                 kAttentionKeys,
                                                 vectors);
    BiasRows<kTileRows> biases;
    const float* const* bias = nullptr;
    if (mask.needs_bias(first_query, last_query, columns)) {
      bias = biases.fill(args, unit, mask, row, rows, columns);
    }
    float keep[kRowsPadded<kTileRows>];
    const SoftmaxRows state{work.state.largest + row, work.state.totals + row * kLanes};
    softmax_rows<kTileRows>(work.scores, bias, vectors * kLanes, scale, state, weights, keep);
    multiply_rows<Step, kTileRows, Start::kScale>(weights,
                                                  kAttentionKeys,
                                                  kWidth,
                                                  values,
                                                  padded * kWidth,
                                                  (columns + kWidth - 1) / kWidth,
                                                  work.output + row * padded,
                                                  padded,
                                                  (args.head_dim + kLanes - 1) / kLanes,
                                                  keep);
  }
}

// Divides a row by its total and stores it: the end of every path.
template <typename T>
void finish_row(const AttentionArgs& args,
                const AttentionUnit& unit,
                int64_t row,
                const float* output,
                float largest,
                float total) {
  const int64_t group = args.group();
  const int64_t token = unit.batch * args.query_len + unit.query_begin + row / group;
  const int64_t head = unit.kv_head * group + row % group;
  store_row(output,
            total == 0.0f ? 0.0f : 1.0f / total,
            args.head_dim,
            static_cast<T*>(args.output) + (token * args.heads + head) * args.head_dim);
  args.logsumexp[row_index(args, unit, row)] = (largest + __builtin_log2f(total)) * kLn2;
}

}  // namespace

template <typename T>
void attention_forward(const AttentionArgs& args,
                       const AttentionUnit& unit,
                       float* scratch,
                       float* partial) {
  const int64_t rows = (unit.query_end - unit.query_begin) * args.group();
  const int64_t padded_rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
  const Workspace work(scratch, padded_rows, args.head_dim);
  const bool decodes = args.query_len * args.group() <= Product<T>::kDecodeRows;
  using Element = typename Product<T>::Step::A;
  if (decodes) {
    gather_rows<T>(args.query, args, unit, padded_rows, work.query, work.padded);
  } else {
    gather_rows<T>(
        args.query, args, unit, padded_rows, reinterpret_cast<Element*>(work.query), work.padded);
  }
  std::memset(work.output, 0, padded_rows * work.padded * sizeof(float));
  work.state.reset(padded_rows);

  const float scale = static_cast<float>(args.scale * 1.44269504088896341);
  BlockMask mask(args, unit);
  const int64_t end_key = mask.end_key();
  int64_t begin = mask.first_key() / kAttentionKeys * kAttentionKeys;
  for (; begin < end_key; begin += kAttentionKeys) {
    const int64_t end = begin + kAttentionKeys < end_key ? begin + kAttentionKeys : end_key;
    if (!mask.enter(begin, end)) continue;
    if (decodes) {
      decode_block<T>(args, unit, mask, work, begin, rows, scale);
    } else {
      tile_block<T>(args, unit, mask, work, begin, end, rows, scale);
    }
  }
  if (partial != nullptr) std::memcpy(partial, work.output, rows * work.padded * sizeof(float));
  for (int64_t row = 0; row < rows; ++row) {
    const float largest = work.state.largest[row];
    const float total = sum(load(work.state.totals + row * kLanes));
    if (partial != nullptr) {
      partial[rows * work.padded + row] = largest;
      partial[rows * (work.padded + 1) + row] = total;
    } else {
      finish_row<T>(args, unit, row, work.output + row * work.padded, largest, total);
    }
  }
}

template <typename T>
void attention_combine(const AttentionArgs& args,
                       const AttentionUnit& first,
                       int64_t splits,
                       float* partials,
                       int64_t partial_size) {
  const int64_t rows = (first.query_end - first.query_begin) * args.group();
  const int64_t padded = attention_padded(args.head_dim);
  for (int64_t row = 0; row < rows; ++row) {
    float* joined = partials + row * padded;
    const auto largest_of = [&](int64_t s) {
      return partials[s * partial_size + rows * padded + row];
    };
    float largest = kNegativeInfinity;
    for (int64_t s = 0; s < splits; ++s) {
      largest = largest_of(s) > largest ? largest_of(s) : largest;
    }
    float total = 0.0f;
    for (int64_t s = 0; s < splits; ++s) {
      const float shift = largest == kNegativeInfinity ? 0.0f : largest;
      const float weight = exp2_of_negative(broadcast(largest_of(s) - shift))[0];
      const float* part = partials + s * partial_size + row * padded;
      total += weight * partials[s * partial_size + rows * (padded + 1) + row];
      for (int64_t c = 0; c < padded; c += kLanes) {
        const vfloat before = s == 0 ? vfloat{} : load(joined + c);
        store(joined + c, before + load(part + c) * weight);
      }
    }
    finish_row<T>(args, first, row, joined, largest, total);
  }
}

#define MISTRAL_EXT_INSTANTIATE(T)                                                                \
  template void attention_forward<T>(const AttentionArgs&, const AttentionUnit&, float*, float*); \
  template void attention_combine<T>(                                                             \
      const AttentionArgs&, const AttentionUnit&, int64_t, float*, int64_t);
MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
