#include "mistral_ext/parallel/collectives.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <utility>
#include <vector>

#include "mistral_ext/parallel/failure.h"

namespace mistral_ext::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Runs a collective of the group to its end; on an accelerator, to its place in the stream.
template <class Start>
void run(const Context& context, const char* name, const Start& start) {
  try {
    start(context.group())->wait();
  } catch (const std::exception& error) {
    throw_collective_failure(context.group(), name, error);
  }
}

void all_reduce_(const at::Tensor& x, c10d::ReduceOp::RedOpType op, const Context& context) {
  std::vector<at::Tensor> tensors{x};
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  run(context, "all_reduce", [&](auto& group) { return group.allreduce(tensors, options); });
}

// [ranks, ...]
at::Tensor gathered(const at::Tensor& x, const Context& context) {
  std::vector<int64_t> shape{context.size()};
  shape.insert(shape.end(), x.sizes().begin(), x.sizes().end());
  const auto result = at::empty(shape, x.options());
  std::vector<std::vector<at::Tensor>> outputs{result.unbind(0)};
  std::vector<at::Tensor> inputs{x.contiguous()};
  run(context, "all_gather", [&](auto& group) { return group.allgather(outputs, inputs); });
  return result;
}

at::Tensor own_part(const at::Tensor& whole, const Context& context) {
  const int64_t length = whole.size(-1) / context.size();
  return whole.narrow(-1, context.rank() * length, length);
}

struct Recipe : torch::CustomClassHolder {
  Recipe(Context context, ShardSpec spec) : context(std::move(context)), spec(spec) {}
  Context context;
  ShardSpec spec;
};

void keep(AutogradContext* ctx, const Context& context, const ShardSpec& spec = {}) {
  ctx->saved_data["recipe"] = c10::IValue::make_capsule(c10::make_intrusive<Recipe>(context, spec));
}

c10::intrusive_ptr<Recipe> kept(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Recipe>(ctx->saved_data["recipe"].toCapsule());
}

class CopyToRanks : public torch::autograd::Function<CopyToRanks> {
 public:
  static Variable forward(AutogradContext* ctx, const Variable& x, const Context& context) {
    keep(ctx, context);
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    // Of its own memory: others may hold the gradient that came in.
    const auto sum = grads[0].clone(at::MemoryFormat::Contiguous);
    all_reduce_(sum, c10d::ReduceOp::SUM, kept(ctx)->context);
    return {sum, Variable()};
  }
};

class AllReduce : public torch::autograd::Function<AllReduce> {
 public:
  static Variable forward(AutogradContext* ctx, const Variable& x, const Context& context) {
    ctx->mark_dirty({x});
    all_reduce_(x, c10d::ReduceOp::SUM, context);
    return x;
  }
  static variable_list backward(AutogradContext* /*ctx*/, const variable_list& grads) {
    return {grads[0], Variable()};
  }
};

class AllGatherLast : public torch::autograd::Function<AllGatherLast> {
 public:
  static Variable forward(AutogradContext* ctx, const Variable& x, const Context& context) {
    keep(ctx, context);
    return at::cat(gathered(x, context).unbind(0), -1);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {own_part(grads[0], kept(ctx)->context), Variable()};
  }
};

class SumGradientsOfReplicas : public torch::autograd::Function<SumGradientsOfReplicas> {
 public:
  static Variable forward(AutogradContext* ctx,
                          const Variable& weight,
                          const ShardSpec& spec,
                          const Context& context) {
    keep(ctx, context, spec);
    return weight.view_as(weight);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    // One collective for all: each rank adds to the place of its part.
    const auto recipe = kept(ctx);
    const auto& spec = recipe->spec;
    std::vector<int64_t> shape{spec.count};
    shape.insert(shape.end(), grads[0].sizes().begin(), grads[0].sizes().end());
    const auto parts = at::zeros(shape, grads[0].options());
    parts.select(0, spec.index).copy_(grads[0]);
    all_reduce_(parts, c10d::ReduceOp::SUM, recipe->context);
    return {parts.select(0, spec.index).clone(), Variable(), Variable()};
  }
};

bool is_recorded(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

}  // namespace

at::Tensor copy_to_ranks(const at::Tensor& x, const Context& context) {
  if (!context.is_sharded() || !is_recorded(x)) return x;
  return CopyToRanks::apply(x, context);
}

at::Tensor all_reduce(const at::Tensor& x, const Context& context) {
  if (!context.is_sharded()) return x;
  // Backends take dense tensors; what products return is.
  auto dense = x.contiguous();
  if (is_recorded(dense)) return AllReduce::apply(dense, context);
  all_reduce_(dense, c10d::ReduceOp::SUM, context);
  return dense;
}

at::Tensor all_gather_last(const at::Tensor& x, const Context& context) {
  if (!context.is_sharded()) return x;
  return AllGatherLast::apply(x, context);
}

at::Tensor sum_gradients_of_replicas(const at::Tensor& weight,
                                     const ShardSpec& spec,
                                     const Context& context) {
  if (spec.replicas == 1 || !is_recorded(weight)) return weight;
  return SumGradientsOfReplicas::apply(weight, spec, context);
}

at::Tensor all_gather(const at::Tensor& x, const Context& context) {
  return context.is_sharded() ? gathered(x, context) : x.unsqueeze(0);
}

void all_reduce_max_(at::Tensor& x, const Context& context) {
  if (context.is_sharded()) all_reduce_(x, c10d::ReduceOp::MAX, context);
}

void broadcast_(at::Tensor& x, const Context& context) {
  if (!context.is_sharded()) return;
  std::vector<at::Tensor> tensors{x};
  run(context, "broadcast", [&](auto& group) { return group.broadcast(tensors); });
}

at::Tensor gather_shards(const at::Tensor& part, const ShardSpec& spec, const Context& context) {
  if (spec.is_whole() || !context.is_sharded()) return part;
  const auto all = gathered(part.detach(), context);
  std::vector<at::Tensor> parts;
  // One of each part's replicas, which stand beside each other.
  for (int64_t i = 0; i < context.size(); i += spec.replicas) parts.push_back(all.select(0, i));
  return at::cat(parts, spec.dim);
}

}  // namespace mistral_ext::parallel
