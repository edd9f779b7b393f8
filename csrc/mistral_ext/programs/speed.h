#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <functional>
#include <vector>

namespace mistral_ext::programs {

// Waits until the device has done what it was given.
void synchronize(const at::Device& device);

// What a call takes.
double seconds(const at::Device& device, const std::function<void()>& call);

double median(std::vector<double> figures);

// When the tokens of one text came. The clock starts as it is made.
class TokenClock {
 public:
  explicit TokenClock(const at::Device& device) : device_(device) {}

  void tick();
  int64_t tokens() const { return std::ssize(times_); }

  // Until the first token: the prompt's pass. 0 before it.
  double first() const { return times_.empty() ? 0.0 : times_.front(); }

  // Of each token after the first, on average; 0 where there is none.
  double each() const;

 private:
  using Clock = std::chrono::steady_clock;

  at::Device device_;
  Clock::time_point started_ = Clock::now();
  std::vector<double> times_;  // seconds since then
};

}  // namespace mistral_ext::programs
