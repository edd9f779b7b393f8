// The reference in plain ATen: the oracle of the tests, and what runs where no kernel of ours does.
// It holds the scores of one block of queries at a time.

#include "mistral_ext/ops/attention_reference.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "mistral_ext/ops/attention.h"
#include "mistral_ext/ops/check_tensor.h"

namespace mistral_ext::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Scores held at a time, in elements.
constexpr int64_t kScores = int64_t{1} << 25;

// A value of a mask of this type that hides a key, and so does anything below it.
double lowest_value(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return std::numeric_limits<double>::lowest();
    case at::kFloat:
      return std::numeric_limits<float>::lowest();
    case at::kBFloat16:
      return std::numeric_limits<c10::BFloat16>::lowest();
    case at::kHalf:
      return std::numeric_limits<c10::Half>::lowest();
    default:
      return -kInfinity;
  }
}

// What one call shares between its blocks of queries. Heads are split in (kv_heads, group).
struct Problem {
  const at::Tensor& query;
  const at::Tensor& key;
  const at::Tensor& value;
  double scale;
  bool is_causal;
  int64_t sliding_window;
  const std::optional<at::Tensor>& mask;
  const std::optional<at::Tensor>& sequence_ids;

  int64_t batch() const { return query.size(0); }
  int64_t query_len() const { return query.size(1); }
  int64_t key_len() const { return key.size(1); }
  int64_t heads() const { return query.size(2); }
  int64_t kv_heads() const { return key.size(2); }
  int64_t group() const { return heads() / kv_heads(); }

  int64_t block_rows() const {
    const auto row = std::max<int64_t>(1, batch() * heads() * key_len());
    return std::clamp<int64_t>(kScores / row, 1, 512);
  }
};

// Queries [begin, end) and the keys [first, last) that any of them may see.
struct Block {
  int64_t begin, end, first, last;

  Block(const Problem& problem, int64_t from, int64_t to) : begin(from), end(to) {
    const auto offset = problem.key_len() - problem.query_len();
    last = problem.is_causal ? offset + end : problem.key_len();
    first = problem.sliding_window > 0
                ? std::max<int64_t>(0, offset + begin - problem.sliding_window + 1)
                : 0;
  }
};

// [batch, rows, heads, head_dim] -> [batch, kv_heads, group * rows, head_dim], in the compute type.
at::Tensor split_heads(const Problem& problem, const at::Tensor& x) {
  const auto rows = x.size(1);
  return x.unflatten(2, {problem.kv_heads(), problem.group()})
      .permute({0, 2, 3, 1, 4})
      .to(accumulation_dtype(x))
      .reshape({problem.batch(), problem.kv_heads(), problem.group() * rows, x.size(3)});
}

// The inverse of split_heads.
at::Tensor join_heads(const Problem& problem, const at::Tensor& x, int64_t rows) {
  return x.view({problem.batch(), problem.kv_heads(), problem.group(), rows, x.size(3)})
      .permute({0, 3, 1, 2, 4})
      .flatten(2, 3);
}

// Keys or values [first, last): [batch, kv_heads, keys, head_dim], in the compute type.
at::Tensor slice_keys(const at::Tensor& x, const Block& block) {
  return x.slice(1, block.first, block.last).transpose(1, 2).to(accumulation_dtype(x));
}

// The scaled and masked scores, [batch, heads, rows, keys]; hidden ones are -inf.
at::Tensor masked_scores(const Problem& problem,
                         const Block& block,
                         const at::Tensor& query,
                         const at::Tensor& key) {
  const auto rows = block.end - block.begin;
  const auto keys = block.last - block.first;
  auto scores = at::matmul(query, key.transpose(2, 3))
                    .mul_(problem.scale)
                    .view({problem.batch(), problem.heads(), rows, keys});
  const auto index = problem.query.options().dtype(at::kLong);
  const auto offset = problem.key_len() - problem.query_len();
  const auto slots = at::arange(offset + block.begin, offset + block.end, index).unsqueeze(1);
  const auto key_slots = at::arange(block.first, block.last, index);
  if (problem.is_causal) scores.masked_fill_(key_slots.gt(slots), -kInfinity);
  if (problem.sliding_window > 0) {
    scores.masked_fill_(key_slots.le(slots.sub(problem.sliding_window)), -kInfinity);
  }
  if (problem.sequence_ids.has_value()) {
    const auto key_ids = problem.sequence_ids->slice(1, block.first, block.last);
    const auto ids = problem.sequence_ids->slice(1, offset + block.begin, offset + block.end);
    scores.masked_fill_(ids.unsqueeze(2).ne(key_ids.unsqueeze(1)).unsqueeze(1), -kInfinity);
  }
  if (!problem.mask.has_value()) return scores;
  if (problem.mask->dim() == 2) {
    const auto hidden = problem.mask->slice(1, block.first, block.last).eq(0);
    return scores.masked_fill_(hidden.unsqueeze(1).unsqueeze(1), -kInfinity);
  }
  const auto mask = problem.mask
                        ->expand({problem.mask->size(0),
                                  problem.mask->size(1),
                                  problem.query_len(),
                                  problem.key_len()})
                        .slice(2, block.begin, block.end)
                        .slice(3, block.first, block.last);
  if (mask.scalar_type() == at::kBool) return scores.masked_fill_(mask.logical_not(), -kInfinity);
  const auto hidden = mask.le(lowest_value(mask.scalar_type()));
  return scores.add_(mask).masked_fill_(hidden, -kInfinity);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> attention_reference(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    double scale,
    bool is_causal,
    int64_t sliding_window,
    const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& sequence_ids) {
  check_attention(
      "attention", query, key, value, scale, is_causal, sliding_window, mask, sequence_ids);
  const Problem problem{query, key, value, scale, is_causal, sliding_window, mask, sequence_ids};
  const auto type = accumulation_dtype(query);
  auto output = at::empty(query.sizes(), query.options());
  auto logsumexp = at::empty({problem.batch(), problem.heads(), problem.query_len()},
                             query.options().dtype(type));
  if (query.numel() == 0) return {output, logsumexp.fill_(-kInfinity)};
  for (int64_t begin = 0; begin < problem.query_len(); begin += problem.block_rows()) {
    const Block block(problem, begin, std::min(begin + problem.block_rows(), problem.query_len()));
    const auto rows = block.end - block.begin;
    const auto keys = slice_keys(key, block);
    const auto scores =
        masked_scores(problem, block, split_heads(problem, query.slice(1, begin, block.end)), keys);
    // A row with no visible key has the maximum -inf; 0 in its place keeps -inf - (-inf) away.
    const auto largest = scores.amax(-1, /*keepdim=*/true);
    const auto shift = largest.masked_fill(largest.eq(-kInfinity), 0);
    const auto weights = scores.sub_(shift).exp_();
    const auto total = weights.sum(-1, /*keepdim=*/true);
    weights.div_(total.masked_fill(total.eq(0), 1));
    const auto grouped = weights.view({problem.batch(), problem.kv_heads(), -1, weights.size(3)});
    auto product = at::matmul(grouped, slice_keys(value, block));
    // 0 times an infinite value is not 0.
    const auto nothing = total.eq(0).view({problem.batch(), problem.kv_heads(), -1, 1});
    output.slice(1, begin, block.end)
        .copy_(join_heads(problem, product.masked_fill_(nothing, 0), rows));
    logsumexp.slice(2, begin, block.end).copy_(total.log_().add_(shift).squeeze(-1));
  }
  return {output, logsumexp};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward_reference(
    const at::Tensor& grad_output,
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& output,
    const at::Tensor& logsumexp,
    double scale,
    bool is_causal,
    int64_t sliding_window,
    const std::optional<at::Tensor>& mask,
    const std::optional<at::Tensor>& sequence_ids) {
  check_attention_backward(grad_output,
                           query,
                           key,
                           value,
                           output,
                           logsumexp,
                           scale,
                           is_causal,
                           sliding_window,
                           mask,
                           sequence_ids);
  const Problem problem{query, key, value, scale, is_causal, sliding_window, mask, sequence_ids};
  const auto type = accumulation_dtype(query);
  auto grad_query = at::empty(query.sizes(), query.options());
  const auto sizes =
      std::vector<int64_t>{problem.batch(), problem.kv_heads(), key.size(1), key.size(3)};
  auto grad_key = at::zeros(sizes, key.options().dtype(type));
  auto grad_value = at::zeros(sizes, key.options().dtype(type));
  const auto to_input = [&](const at::Tensor& grad) {
    return grad.to(key.scalar_type()).transpose(1, 2).contiguous();
  };
  if (query.numel() == 0) return {grad_query, to_input(grad_key), to_input(grad_value)};
  for (int64_t begin = 0; begin < problem.query_len(); begin += problem.block_rows()) {
    const Block block(problem, begin, std::min(begin + problem.block_rows(), problem.query_len()));
    const auto rows = block.end - block.begin;
    const auto slice = [&](const at::Tensor& x) {
      return split_heads(problem, x.slice(1, begin, block.end));
    };
    const auto queries = slice(query);
    const auto gradients = slice(grad_output);
    const auto keys = slice_keys(key, block);
    const auto scores = masked_scores(problem, block, queries, keys);
    const auto lse = logsumexp.slice(2, begin, block.end).unsqueeze(-1);
    const auto shape = queries.sizes();  // [batch, kv_heads, group * rows, head_dim]
    const auto weights = scores.sub_(lse.masked_fill(lse.eq(-kInfinity), 0))
                             .clamp_max_(0)
                             .exp_()
                             .view({shape[0], shape[1], shape[2], scores.size(3)});
    // d scores = weights * (d weights - sum(output * d output)) * scale
    const auto inner = gradients.mul(slice(output)).sum(-1, /*keepdim=*/true);
    const auto grad_scores = at::matmul(gradients, slice_keys(value, block).transpose(2, 3))
                                 .sub_(inner)
                                 .mul_(weights)
                                 .mul_(scale);
    grad_query.slice(1, begin, block.end)
        .copy_(join_heads(problem, at::matmul(grad_scores, keys), rows));
    grad_key.slice(2, block.first, block.last)
        .add_(at::matmul(grad_scores.transpose(2, 3), queries));
    grad_value.slice(2, block.first, block.last)
        .add_(at::matmul(weights.transpose(2, 3), gradients));
  }
  return {grad_query, to_input(grad_key), to_input(grad_value)};
}

TORCH_LIBRARY_IMPL(mistral_ext, CompositeExplicitAutograd, m) {
  m.impl("attention", &attention_reference);
  m.impl("attention_backward", &attention_backward_reference);
}

}  // namespace mistral_ext::ops
