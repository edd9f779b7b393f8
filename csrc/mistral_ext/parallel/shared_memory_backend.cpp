#include "mistral_ext/parallel/shared_memory_backend.h"

#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/completed_work.h"
#include "mistral_ext/parallel/dense_tensor.h"
#include "mistral_ext/parallel/tensor_parts.h"

namespace mistral_ext::parallel {
namespace {

using c10d::OpType;
using Use = DenseTensor::Use;
using Work = c10::intrusive_ptr<c10d::Work>;

Reduction reduction_of(Collective collective, const c10d::ReduceOp& op) {
  switch (op.op_) {
    case c10d::ReduceOp::SUM:
      return Reduction::sum;
    case c10d::ReduceOp::AVG:
      return Reduction::average;
    case c10d::ReduceOp::PRODUCT:
      return Reduction::product;
    case c10d::ReduceOp::MIN:
      return Reduction::min;
    case c10d::ReduceOp::MAX:
      return Reduction::max;
    case c10d::ReduceOp::BAND:
      return Reduction::bit_and;
    case c10d::ReduceOp::BOR:
      return Reduction::bit_or;
    case c10d::ReduceOp::BXOR:
      return Reduction::bit_xor;
    default:
      break;
  }
  MISTRAL_EXT_CHECK(false,
                    "{}: op must be SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR or BXOR, got number {}",
                    name_of(collective),
                    static_cast<int>(op.op_));
  return Reduction::sum;
}

void check_root(Collective collective, int64_t root, int size) {
  MISTRAL_EXT_CHECK(root >= 0 && root < size,
                    "{}: root must be a rank below {}, got {}",
                    name_of(collective),
                    size,
                    root);
}

void check_as_many(Collective collective, size_t outputs, size_t inputs) {
  MISTRAL_EXT_CHECK(outputs == inputs,
                    "{}: outputs must be as many as the {} inputs, got {}",
                    name_of(collective),
                    inputs,
                    outputs);
}

}  // namespace

SharedMemoryBackend::SharedMemoryBackend(const c10::intrusive_ptr<c10d::Store>& store,
                                         int rank,
                                         int size,
                                         std::chrono::milliseconds timeout,
                                         const std::string& group)
    : Backend(rank, size),
      timeout_(timeout),
      group_(group),
      collectives_(*store, rank, size, group, timeout) {}

c10::intrusive_ptr<c10d::Backend::Options> SharedMemoryBackend::getBackendOptions() {
  auto options = c10::make_intrusive<Options>(kSharedMemoryBackend, timeout_);
  options->group_name = group_;
  return options;
}

std::chrono::milliseconds SharedMemoryBackend::timeout_or_own(
    std::chrono::milliseconds timeout) const {
  return timeout == c10d::kUnsetTimeout ? timeout_.load() : timeout;
}

Work SharedMemoryBackend::done(OpType op, std::vector<at::Tensor> results) const {
  return c10::make_intrusive<CompletedWork>(rank_, op, std::move(results), collectives_.calls());
}

Work SharedMemoryBackend::allreduce(std::vector<at::Tensor>& tensors,
                                    const c10d::AllreduceOptions& options) {
  constexpr auto kCall = Collective::all_reduce;
  check_single(kCall, "tensors", tensors.size());
  DenseTensor tensor(kCall, "tensor", tensors[0], Use::update);
  collectives_.all_reduce(tensor.data(),
                          tensor.elements(),
                          reduction_of(kCall, options.reduceOp),
                          timeout_or_own(options.timeout));
  tensor.store();
  return done(OpType::ALLREDUCE, tensors);
}

Work SharedMemoryBackend::allreduce_coalesced(std::vector<at::Tensor>& tensors,
                                              const c10d::AllreduceCoalescedOptions& options) {
  for (const auto& tensor : tensors) {
    std::vector<at::Tensor> one{tensor};
    allreduce(one, options);
  }
  return done(OpType::ALLREDUCE_COALESCED, tensors);
}

Work SharedMemoryBackend::reduce(std::vector<at::Tensor>& tensors,
                                 const c10d::ReduceOptions& options) {
  constexpr auto kCall = Collective::reduce;
  check_single(kCall, "tensors", tensors.size());
  check_root(kCall, options.rootRank, size_);
  DenseTensor tensor(kCall, "tensor", tensors[0], Use::update);
  collectives_.reduce(tensor.data(),
                      tensor.elements(),
                      reduction_of(kCall, options.reduceOp),
                      static_cast<int>(options.rootRank),
                      timeout_or_own(options.timeout));
  tensor.store();
  return done(OpType::REDUCE, tensors);
}

Work SharedMemoryBackend::broadcast(std::vector<at::Tensor>& tensors,
                                    const c10d::BroadcastOptions& options) {
  constexpr auto kCall = Collective::broadcast;
  check_single(kCall, "tensors", tensors.size());
  check_root(kCall, options.rootRank, size_);
  DenseTensor tensor(kCall, "tensor", tensors[0], Use::update);
  collectives_.broadcast(tensor.data(),
                         tensor.elements(),
                         static_cast<int>(options.rootRank),
                         timeout_or_own(options.timeout));
  tensor.store();
  return done(OpType::BROADCAST, tensors);
}

Work SharedMemoryBackend::allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                    std::vector<at::Tensor>& inputs,
                                    const c10d::AllgatherOptions& options) {
  constexpr auto kCall = Collective::all_gather;
  check_single(kCall, "inputs", inputs.size());
  check_single(kCall, "outputs", outputs.size());
  const DenseTensor input(kCall, "input", inputs[0], Use::read);
  const auto elements = input.elements();
  DenseTensors parts(kCall, "outputs", outputs[0], size_, elements.dtype, Use::write);
  parts.check_counts(kCall, "outputs", elements.count);
  collectives_.all_gather(parts.data(), input.data(), elements, timeout_or_own(options.timeout));
  parts.store();
  return done(OpType::ALLGATHER, outputs[0]);
}

Work SharedMemoryBackend::allgather_coalesced(std::vector<std::vector<at::Tensor>>& outputs,
                                              std::vector<at::Tensor>& inputs,
                                              const c10d::AllgatherOptions& options) {
  // outputs[rank][i] is for inputs[i].
  std::vector<at::Tensor> results;
  for (const auto& output : outputs) {
    check_as_many(Collective::all_gather, output.size(), inputs.size());
    results.insert(results.end(), output.begin(), output.end());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<std::vector<at::Tensor>> of_one(1);
    for (const auto& output : outputs) of_one[0].push_back(output[i]);
    std::vector<at::Tensor> one{inputs[i]};
    allgather(of_one, one, options);
  }
  return done(OpType::ALLGATHER_COALESCED, std::move(results));
}

Work SharedMemoryBackend::_allgather_base(at::Tensor& output,
                                          at::Tensor& input,
                                          const c10d::AllgatherOptions& options) {
  constexpr auto kCall = Collective::all_gather;
  const DenseTensor part(kCall, "input", input, Use::read);
  DenseTensor whole(kCall, "output", output, Use::write);
  const TensorParts parts(kCall, "output", whole, part.elements(), size_);
  collectives_.all_gather(
      parts.data(), part.data(), part.elements(), timeout_or_own(options.timeout));
  whole.store();
  return done(OpType::_ALLGATHER_BASE, {output});
}

Work SharedMemoryBackend::allgather_into_tensor_coalesced(std::vector<at::Tensor>& outputs,
                                                          std::vector<at::Tensor>& inputs,
                                                          const c10d::AllgatherOptions& options) {
  check_as_many(Collective::all_gather, outputs.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) _allgather_base(outputs[i], inputs[i], options);
  return done(OpType::COALESCED, outputs);
}

Work SharedMemoryBackend::gather(std::vector<std::vector<at::Tensor>>& outputs,
                                 std::vector<at::Tensor>& inputs,
                                 const c10d::GatherOptions& options) {
  constexpr auto kCall = Collective::gather;
  check_single(kCall, "inputs", inputs.size());
  check_root(kCall, options.rootRank, size_);
  const DenseTensor input(kCall, "input", inputs[0], Use::read);
  const auto elements = input.elements();
  const bool is_root = rank_ == options.rootRank;
  if (is_root) check_single(kCall, "outputs", outputs.size());
  const std::vector<at::Tensor> results = is_root ? outputs[0] : std::vector<at::Tensor>{};
  DenseTensors parts(kCall, "outputs", results, is_root ? size_ : 0, elements.dtype, Use::write);
  parts.check_counts(kCall, "outputs", elements.count);
  collectives_.gather(parts.data(),
                      input.data(),
                      elements,
                      static_cast<int>(options.rootRank),
                      timeout_or_own(options.timeout));
  parts.store();
  return done(OpType::GATHER, results);
}

Work SharedMemoryBackend::scatter(std::vector<at::Tensor>& outputs,
                                  std::vector<std::vector<at::Tensor>>& inputs,
                                  const c10d::ScatterOptions& options) {
  constexpr auto kCall = Collective::scatter;
  check_single(kCall, "outputs", outputs.size());
  check_root(kCall, options.rootRank, size_);
  DenseTensor output(kCall, "output", outputs[0], Use::write);
  const auto elements = output.elements();
  const bool is_root = rank_ == options.rootRank;
  if (is_root) check_single(kCall, "inputs", inputs.size());
  const DenseTensors parts(kCall,
                           "inputs",
                           is_root ? inputs[0] : std::vector<at::Tensor>{},
                           is_root ? size_ : 0,
                           elements.dtype,
                           Use::read);
  parts.check_counts(kCall, "inputs", elements.count);
  collectives_.scatter(output.data(),
                       parts.inputs(),
                       elements,
                       static_cast<int>(options.rootRank),
                       timeout_or_own(options.timeout));
  output.store();
  return done(OpType::SCATTER, outputs);
}

Work SharedMemoryBackend::reduce_scatter(std::vector<at::Tensor>& outputs,
                                         std::vector<std::vector<at::Tensor>>& inputs,
                                         const c10d::ReduceScatterOptions& options) {
  constexpr auto kCall = Collective::reduce_scatter;
  check_single(kCall, "outputs", outputs.size());
  check_single(kCall, "inputs", inputs.size());
  DenseTensor output(kCall, "output", outputs[0], Use::write);
  const auto elements = output.elements();
  const DenseTensors parts(kCall, "inputs", inputs[0], size_, elements.dtype, Use::read);
  parts.check_counts(kCall, "inputs", elements.count);
  collectives_.reduce_scatter(output.data(),
                              parts.inputs(),
                              elements,
                              reduction_of(kCall, options.reduceOp),
                              timeout_or_own(options.timeout));
  output.store();
  return done(OpType::REDUCE_SCATTER, outputs);
}

Work SharedMemoryBackend::_reduce_scatter_base(at::Tensor& output,
                                               at::Tensor& input,
                                               const c10d::ReduceScatterOptions& options) {
  constexpr auto kCall = Collective::reduce_scatter;
  const DenseTensor whole(kCall, "input", input, Use::read);
  DenseTensor part(kCall, "output", output, Use::write);
  const TensorParts parts(kCall, "input", whole, part.elements(), size_);
  collectives_.reduce_scatter(part.data(),
                              parts.inputs(),
                              part.elements(),
                              reduction_of(kCall, options.reduceOp),
                              timeout_or_own(options.timeout));
  part.store();
  return done(OpType::_REDUCE_SCATTER_BASE, {output});
}

Work SharedMemoryBackend::reduce_scatter_tensor_coalesced(
    std::vector<at::Tensor>& outputs,
    std::vector<at::Tensor>& inputs,
    const c10d::ReduceScatterOptions& options) {
  check_as_many(Collective::reduce_scatter, outputs.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) _reduce_scatter_base(outputs[i], inputs[i], options);
  return done(OpType::COALESCED, outputs);
}

Work SharedMemoryBackend::alltoall_base(at::Tensor& output,
                                        at::Tensor& input,
                                        std::vector<int64_t>& output_splits,
                                        std::vector<int64_t>& input_splits,
                                        const c10d::AllToAllOptions& options) {
  constexpr auto kCall = Collective::all_to_all;
  const DenseTensor from(kCall, "input", input, Use::read);
  DenseTensor to(kCall, "output", output, Use::write);
  const auto dtype = from.elements().dtype;
  MISTRAL_EXT_CHECK(to.elements().dtype == dtype,
                    "{}: output must have the input's dtype {}, got {}",
                    name_of(kCall),
                    c10::toString(dtype),
                    c10::toString(to.elements().dtype));
  const TensorParts sent(kCall, "input", from, input_splits, size_);
  const TensorParts received(kCall, "output", to, output_splits, size_);
  collectives_.all_to_all(received.data(),
                          received.counts(),
                          sent.inputs(),
                          sent.counts(),
                          dtype,
                          timeout_or_own(options.timeout));
  to.store();
  return done(OpType::ALLTOALL_BASE, {output});
}

Work SharedMemoryBackend::alltoall(std::vector<at::Tensor>& outputs,
                                   std::vector<at::Tensor>& inputs,
                                   const c10d::AllToAllOptions& options) {
  constexpr auto kCall = Collective::all_to_all;
  check_as_many(kCall, outputs.size(), inputs.size());
  const auto dtype = inputs.empty() ? c10::kFloat : inputs[0].scalar_type();
  const DenseTensors from(kCall, "inputs", inputs, size_, dtype, Use::read);
  DenseTensors to(kCall, "outputs", outputs, size_, dtype, Use::write);
  collectives_.all_to_all(
      to.data(), to.counts(), from.inputs(), from.counts(), dtype, timeout_or_own(options.timeout));
  to.store();
  return done(OpType::ALLTOALL, outputs);
}

Work SharedMemoryBackend::barrier(const c10d::BarrierOptions& options) {
  collectives_.barrier(timeout_or_own(options.timeout));
  return done(OpType::BARRIER, {});
}

}  // namespace mistral_ext::parallel
