#include "mistral_ext/programs/machine.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/sum.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/ops/linear.h"
#include "mistral_ext/programs/speed.h"
#include "mistral_ext/version.h"

namespace mistral_ext::programs {
namespace {

constexpr int kRuns = 5;

double fastest(const at::Device& device, const std::function<void()>& call) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRuns; ++i) best = std::min(best, seconds(device, call));
  return best;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      return line.substr(std::min(line.find(": ") + 2, line.size()));
    }
  }
  return "unknown";
}

}  // namespace

ConfigMap describe_machine(const at::Device& device) {
  ConfigMap machine;
  machine["cpu"].value = processor();
  machine["cores"].value = static_cast<int64_t>(std::thread::hardware_concurrency());
  machine["threads"].value = static_cast<int64_t>(at::get_num_threads());
  machine["cpu_level"].value = std::string(kernels::cpu::level_name(kernels::cpu::active_level()));
  machine["device"].value = device.str();
  machine["memory_bytes"].value = memory_bytes();
  machine["mistral_ext"].value = std::string(MISTRAL_EXT_VERSION);
  machine["torch"].value = std::string(MISTRAL_EXT_TORCH_VERSION);
  return machine;
}

int64_t memory_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

double read_bandwidth(const at::Device& device) {
  constexpr int64_t kBytes = int64_t{1} << 29;  // well beyond any cache
  const auto dtype = device.is_cpu() ? at::kDouble : at::kFloat;
  const auto count = kBytes / static_cast<int64_t>(c10::elementSize(dtype));
  const auto buffer = at::ones({count}, at::TensorOptions(device).dtype(dtype));
  return static_cast<double>(kBytes) / fastest(device, [&] { buffer.sum(); });
}

double operations_per_second(const at::Device& device, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t size = device.is_cpu() ? 1536 : 8192;
  // Not constants, on which a GPU draws less power and runs faster.
  const auto a = at::rand({size, size}, at::TensorOptions(device).dtype(dtype));
  const double best = std::min(fastest(device, [&] { at::mm(a, a.t()); }),
                               fastest(device, [&] { ops::linear(a, a); }));
  const auto n = static_cast<double>(size);
  return 2.0 * n * n * n / best;
}

}  // namespace mistral_ext::programs
