#include "mistral_ext/generation/warpers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/nansum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <limits>

namespace mistral_ext::generation {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr int64_t kTopHCandidates = 100;

// As torch.distributions.Categorical has it.
at::Tensor normalise(const at::Tensor& scores) {
  return scores - at::logsumexp(scores, -1, /*keepdim=*/true);
}

// [batch], given normalised scores.
at::Tensor entropy_of(const at::Tensor& normalised) {
  const auto finite = at::clamp_min(normalised, std::numeric_limits<float>::lowest());
  return -(finite * at::softmax(normalised, -1)).sum(-1);
}

at::Tensor remove_unlikely(const at::Tensor& scores, const at::Tensor& unlikely, int64_t at_least) {
  const int64_t k = std::min(at_least, scores.size(1));
  const auto last = std::get<0>(at::topk(scores, k)).narrow(1, k - 1, 1);
  return scores.masked_fill(unlikely & (scores < last), kMinusInfinity);
}

}  // namespace

at::Tensor keep_top_k(const at::Tensor& scores, int64_t k) {
  k = std::min(k, scores.size(1));
  const auto last = std::get<0>(at::topk(scores, k)).narrow(1, k - 1, 1);
  return scores.masked_fill(scores < last, kMinusInfinity);
}

at::Tensor keep_top_p(const at::Tensor& scores, double p, int64_t at_least) {
  const auto [sorted, order] = at::sort(scores, /*dim=*/-1, /*descending=*/false);
  auto removed = at::softmax(sorted, -1).cumsum(-1) <= 1.0 - p;
  at_least = std::min(at_least, removed.size(1));
  removed.narrow(1, removed.size(1) - at_least, at_least).fill_(false);
  return scores.masked_fill(at::scatter(removed, 1, order, removed), kMinusInfinity);
}

at::Tensor keep_min_p(const at::Tensor& scores, double p, int64_t at_least) {
  const auto probabilities = at::softmax(scores, -1);
  const auto least = probabilities.amax(-1, /*keepdim=*/true) * p;
  auto removed = probabilities < least;
  if (at_least > 1) {  // the likeliest token stays anyway
    at_least = std::min(at_least, scores.size(1));
    removed.scatter_(1, std::get<1>(at::topk(probabilities, at_least)), false);
  }
  return scores.masked_fill(removed, kMinusInfinity);
}

at::Tensor keep_top_h(const at::Tensor& scores, double h) {
  const auto [top, order] = at::topk(scores, std::min(kTopHCandidates, scores.size(1)));
  const auto normalised = normalise(top);
  const auto probabilities = at::softmax(normalised, -1);
  const auto share = (entropy_of(normalised) * h).unsqueeze(-1);
  auto removed = ((-probabilities * probabilities.log()).cumsum(-1) <= share).logical_not();
  removed.select(1, 0).fill_(false);
  const auto all = at::ones_like(scores, scores.options().dtype(at::kBool));
  return scores.masked_fill(at::scatter(all, 1, order, removed), kMinusInfinity);
}

at::Tensor keep_typical(const at::Tensor& scores, double mass, int64_t at_least) {
  const auto normalised = at::log_softmax(scores, -1);
  const auto entropy = -at::nansum(normalised * normalised.exp(), -1, /*keepdim=*/true);
  const auto [distances, order] =
      at::sort((-normalised - entropy).abs(), /*dim=*/-1, /*descending=*/false);
  const auto reached = at::softmax(at::gather(scores, 1, order), -1).cumsum(-1);
  const auto last = (reached < mass).sum(1, /*keepdim=*/true).clamp_max_(distances.size(1) - 1);
  auto removed = distances > at::gather(distances, 1, last);
  removed.narrow(1, 0, std::min(at_least, removed.size(1))).fill_(false);
  return scores.masked_fill(at::scatter(removed, 1, order, removed), kMinusInfinity);
}

at::Tensor keep_epsilon(const at::Tensor& scores, double epsilon, int64_t at_least) {
  return remove_unlikely(scores, at::softmax(scores, -1) < epsilon, at_least);
}

at::Tensor keep_eta(const at::Tensor& scores, double epsilon, int64_t at_least) {
  // Rounded to fp32 first, as the reference does.
  const auto most = at::full({}, epsilon, scores.options());
  const auto eta = at::minimum(most, most.sqrt() * (-entropy_of(normalise(scores))).exp());
  return remove_unlikely(scores, at::softmax(scores, -1) < eta.unsqueeze(-1), at_least);
}

}  // namespace mistral_ext::generation
