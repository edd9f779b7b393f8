#include "mistral_ext/layers/vocab_parallel_cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/linear.h"
#include "mistral_ext/ops/linear_cross_entropy.h"
#include "mistral_ext/ops/linear_cross_entropy_parts.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::layers {
namespace {

// Where this rank's part of the vocabulary has the labels.
struct LocalLabels {
  at::Tensor rows;     // int64 [n]: in the part, 0 where the label is another rank's
  at::Tensor is_here;  // bool [n]

  LocalLabels(const at::Tensor& labels, int64_t begin, int64_t count) {
    const auto local = labels - begin;
    is_here = local.ge(0).logical_and_(local.lt(count));
    rows = at::where(is_here, local, at::zeros_like(local));
  }
};

// logits: [n, part of the vocabulary] in the accumulation dtype. Returns the log of the sum of all
// ranks' exponentials, and each row's logit of its label: [n] each.
std::pair<at::Tensor, at::Tensor> exchange(const at::Tensor& logits,
                                           const LocalLabels& labels,
                                           const parallel::Context& context) {
  const auto own = logits.gather(1, labels.rows.unsqueeze(1)).squeeze(1);
  // A stack, for one collective: [ranks, 2, n].
  const auto all = parallel::all_gather(
      at::stack({at::logsumexp(logits, 1), at::where(labels.is_here, own, at::zeros_like(own))}),
      context);
  return {at::logsumexp(all.select(1, 0), 0), all.select(1, 1).sum(0)};
}

struct LossAndGradients {
  at::Tensor loss;
  at::Tensor hidden;  // this rank's part of the sum; undefined where it is not asked for
  at::Tensor weight;  // in the accumulation dtype
  bool has_rows;
};

LossAndGradients compute(const at::Tensor& hidden,
                         const at::Tensor& weight,
                         const at::Tensor& labels,
                         int64_t ignore_index,
                         const parallel::Context& context) {
  const auto wide = ops::accumulation_dtype(hidden);
  const int64_t part = weight.size(0);
  const ops::KeptRows kept(labels, ignore_index, part * context.size());
  const auto rows = kept.of(hidden);
  LossAndGradients result;
  result.has_rows = kept.count() > 0;
  result.loss = at::zeros({}, hidden.options().dtype(wide));
  auto grad_rows =
      hidden.requires_grad() ? at::empty_like(rows, at::MemoryFormat::Contiguous) : at::Tensor();
  if (weight.requires_grad()) {
    result.weight = at::zeros(weight.sizes(), weight.options().dtype(wide));
  }
  const auto itemsize = static_cast<int64_t>(c10::elementSize(wide));
  ops::for_each_chunk(kept.count(), part, itemsize, [&](int64_t begin, int64_t length) {
    const auto x = rows.narrow(0, begin, length);
    const auto logits = ops::linear(x, weight).to(wide);
    const LocalLabels targets(kept.labels().narrow(0, begin, length), context.rank() * part, part);
    const auto [log_sum, own] = exchange(logits, targets, context);
    result.loss.add_((log_sum - own).sum());
    if (!grad_rows.defined() && !result.weight.defined()) return;
    // softmax - one at the label
    const auto gradient = (logits - log_sum.unsqueeze(1)).exp_();
    gradient.scatter_add_(
        1, targets.rows.unsqueeze(1), targets.is_here.to(wide).neg_().unsqueeze(1));
    const auto narrow = gradient.to(hidden.scalar_type());
    if (grad_rows.defined()) {
      grad_rows.narrow(0, begin, length).copy_(ops::linear(narrow, weight.t()));
    }
    if (result.weight.defined()) result.weight.add_(ops::transposed_product(narrow, x));
  });
  if (grad_rows.defined()) result.hidden = kept.put_back(grad_rows);
  return result;
}

// Keeps the gradients of the sum, as ops::linear_cross_entropy.
class VocabParallelCrossEntropy : public torch::autograd::Function<VocabParallelCrossEntropy> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx,
                            const at::Tensor& hidden,
                            const at::Tensor& weight,
                            const at::Tensor& labels,
                            int64_t ignore_index,
                            const parallel::Context& context) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto result = compute(hidden, weight, labels, ignore_index, context);
    ctx->save_for_backward({result.hidden, result.weight});
    ctx->saved_data["has_rows"] = result.has_rows;
    ctx->saved_data["dtype"] = hidden.scalar_type();
    return result.loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto dtype = ctx->saved_data["dtype"].toScalarType();
    // The mean over no rows is 0 / 0: what comes in is then not finite.
    const auto grad_loss =
        ctx->saved_data["has_rows"].toBool() ? grads[0] : at::zeros_like(grads[0]);
    torch::autograd::variable_list result(5);
    for (size_t i = 0; i < saved.size(); ++i) {
      if (ctx->needs_input_grad(i) && saved[i].defined()) {
        result[i] = ops::scaled(saved[i], grad_loss, dtype);
      }
    }
    return result;
  }
};

}  // namespace

at::Tensor vocab_parallel_cross_entropy(const at::Tensor& hidden,
                                        const at::Tensor& weight,
                                        const at::Tensor& labels,
                                        int64_t ignore_index,
                                        const parallel::Context& context) {
  if (!context.is_sharded()) {
    return ops::linear_cross_entropy(hidden, weight, labels, ignore_index);
  }
  ops::check_linear_cross_entropy(hidden, weight, labels);
  return VocabParallelCrossEntropy::apply(
      parallel::copy_to_ranks(hidden, context), weight, labels, ignore_index, context);
}

}  // namespace mistral_ext::layers
