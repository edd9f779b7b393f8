#include "mistral_ext/parallel/completed_work.h"

#include <ATen/core/ivalue_inl.h>
#include <ATen/core/jit_type.h>

#include <utility>

namespace mistral_ext::parallel {

CompletedWork::CompletedWork(int rank,
                             c10d::OpType op,
                             std::vector<at::Tensor> results,
                             uint64_t number)
    : Work(rank, op), results_(std::move(results)), number_(number) {
  finish();
}

bool CompletedWork::wait(std::chrono::milliseconds /*timeout*/) { return true; }

c10::intrusive_ptr<c10::ivalue::Future> CompletedWork::getFuture() {
  auto future =
      c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
  future->markCompleted(c10::IValue(results_));
  return future;
}

c10::intrusive_ptr<c10::ivalue::Future> CompletedWork::getFutureResult() {
  auto future = c10::make_intrusive<c10::ivalue::Future>(c10::IntType::get());
  future->markCompleted(c10::IValue(static_cast<int64_t>(c10d::WorkResult::SUCCESS)));
  return future;
}

}  // namespace mistral_ext::parallel
