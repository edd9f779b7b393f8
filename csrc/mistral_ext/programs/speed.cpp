#include "mistral_ext/programs/speed.h"

#include <torch/cuda.h>

#include <algorithm>

namespace mistral_ext::programs {

void synchronize(const at::Device& device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

double seconds(const at::Device& device, const std::function<void()>& call) {
  synchronize(device);
  const auto started = std::chrono::steady_clock::now();
  call();
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

double median(std::vector<double> figures) {
  std::ranges::sort(figures);
  const auto middle = figures.size() / 2;
  if (figures.size() % 2 == 1) return figures[middle];
  return (figures[middle - 1] + figures[middle]) / 2;
}

void TokenClock::tick() {
  synchronize(device_);
  times_.push_back(std::chrono::duration<double>(Clock::now() - started_).count());
}

double TokenClock::each() const {
  if (times_.size() < 2) return 0.0;
  return (times_.back() - times_.front()) / static_cast<double>(times_.size() - 1);
}

}  // namespace mistral_ext::programs
