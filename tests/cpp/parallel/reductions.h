#pragma once

// What reductions among ranks have to give.

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/Types.hpp>
#include <vector>

namespace mistral_ext::parallel {

using Tensors = std::vector<torch::Tensor>;

// By torch's operators, in the order of the ranks; 16-bit floats in fp32.
inline torch::Tensor reduced(const Tensors& inputs, c10d::ReduceOp::RedOpType op) {
  const auto dtype = inputs[0].scalar_type();
  const bool narrow = at::isReducedFloatingType(dtype);
  auto total = narrow ? inputs[0].to(at::kFloat) : inputs[0].clone();
  for (size_t rank = 1; rank < inputs.size(); ++rank) {
    const auto next = narrow ? inputs[rank].to(at::kFloat) : inputs[rank];
    switch (op) {
      case c10d::ReduceOp::SUM:
      case c10d::ReduceOp::AVG:
        total = total + next;
        break;
      case c10d::ReduceOp::PRODUCT:
        total = total * next;
        break;
      case c10d::ReduceOp::MIN:
        total = torch::minimum(total, next);
        break;
      case c10d::ReduceOp::MAX:
        total = torch::maximum(total, next);
        break;
      case c10d::ReduceOp::BAND:
        total = torch::bitwise_and(total, next);
        break;
      case c10d::ReduceOp::BOR:
        total = torch::bitwise_or(total, next);
        break;
      default:
        total = torch::bitwise_xor(total, next);
    }
  }
  const auto ranks = static_cast<int64_t>(inputs.size());
  if (op == c10d::ReduceOp::AVG) {
    total = at::isIntegralType(dtype, false) ? torch::div(total, ranks, "trunc") : total / ranks;
  }
  return total.to(dtype);
}

// Those that a dtype has.
inline std::vector<c10d::ReduceOp::RedOpType> reductions_of(at::ScalarType dtype) {
  if (dtype == at::kBool) {
    return {c10d::ReduceOp::MIN,
            c10d::ReduceOp::MAX,
            c10d::ReduceOp::BAND,
            c10d::ReduceOp::BOR,
            c10d::ReduceOp::BXOR};
  }
  if (!at::isIntegralType(dtype, false)) {
    return {c10d::ReduceOp::SUM,
            c10d::ReduceOp::AVG,
            c10d::ReduceOp::PRODUCT,
            c10d::ReduceOp::MIN,
            c10d::ReduceOp::MAX};
  }
  return {c10d::ReduceOp::SUM,
          c10d::ReduceOp::AVG,
          c10d::ReduceOp::PRODUCT,
          c10d::ReduceOp::MIN,
          c10d::ReduceOp::MAX,
          c10d::ReduceOp::BAND,
          c10d::ReduceOp::BOR,
          c10d::ReduceOp::BXOR};
}

}  // namespace mistral_ext::parallel
