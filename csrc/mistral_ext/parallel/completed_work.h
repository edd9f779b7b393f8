#pragma once

#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace mistral_ext::parallel {

// A collective that is done: nothing to wait for, and a future that has its tensors.
class CompletedWork : public c10d::Work {
 public:
  CompletedWork(int rank, c10d::OpType op, std::vector<at::Tensor> results, uint64_t number);

  bool isCompleted() override { return true; }
  bool isSuccess() const override { return true; }
  bool wait(std::chrono::milliseconds timeout) override;
  void synchronize() override {}
  std::vector<at::Tensor> result() override { return results_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFutureResult() override;
  uint64_t getSequencenumber() const override { return number_; }

 private:
  std::vector<at::Tensor> results_;
  uint64_t number_;
};

}  // namespace mistral_ext::parallel
