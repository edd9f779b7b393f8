#include "mistral_ext/programs/model_options.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/cuda.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/parallel/init_from_env.h"
#include "mistral_ext/parallel/launch_environment.h"
#include "mistral_ext/programs/option_values.h"
#include "mistral_ext/programs/program.h"

namespace mistral_ext::programs {
namespace {

constexpr std::array<std::pair<const char*, at::ScalarType>, 3> kDtypes = {
    {{"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}}};

std::string check_dtype(const std::string& name) {
  if (name == "auto") return {};
  for (const auto& [known, dtype] : kDtypes) {
    if (name == known) return {};
  }
  return fmt::format("must be auto, float32, bfloat16 or float16, got '{}'", name);
}

// The configurations beside it, which a copy of a model's small files has too, are not asked: it
// has its own.
bool is_prepacked_alone(const std::filesystem::path& folder) {
  constexpr std::array<const char*, 4> kWeights = {"model.safetensors",
                                                   "model.safetensors.index.json",
                                                   "consolidated.safetensors",
                                                   "consolidated.safetensors.index.json"};
  return io::is_there(folder / models::kPrepackedFile) &&
         std::ranges::none_of(kWeights,
                              [&](const char* name) { return io::is_there(folder / name); });
}

// The processes that torchrun, mpirun or srun has started along with this one. All of them compute,
// and the first one writes: the others' standard output goes nowhere.
parallel::Context join_ranks(at::Device device) {
  if (parallel::read_launch_environment().world_size == 1) return {};
  parallel::InitOptions options;
  options.device = device.type();
  const parallel::Context ranks(parallel::init_from_env(options));
  if (ranks.rank() != 0 && std::freopen("/dev/null", "w", stdout) == nullptr) {
    throw std::runtime_error("cannot write to /dev/null");
  }
  return ranks;
}

}  // namespace

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_option("--dtype", options.dtype, "auto (the checkpoint's), float32, bfloat16 or float16")
      ->check(CLI::Validator(check_dtype, ""))
      ->type_name("DTYPE");
  app.add_option("--device", options.device, "cpu, cuda, cuda:1 (default: cuda where there is one)")
      ->type_name("DEVICE");
  app.add_option("--threads", options.threads, "CPU threads (default: torch's)")
      ->transform(integer(1, 1024));
}

void apply_threads(const ModelOptions& options) {
  if (options.threads) at::set_num_threads(*options.threads);
}

std::optional<at::ScalarType> chosen_dtype(const ModelOptions& options) {
  for (const auto& [name, dtype] : kDtypes) {
    if (options.dtype == name) return dtype;
  }
  return std::nullopt;
}

at::Device chosen_device(const ModelOptions& options) {
  if (options.device.empty()) return torch::cuda::is_available() ? at::kCUDA : at::kCPU;
  std::optional<at::Device> device;
  try {
    device.emplace(options.device);
    if (!device->is_meta()) at::empty({0}, *device);
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    throw UsageError(fmt::format("--device: cannot use {}: {}",
                                 io::printable(options.device),
                                 reason.substr(0, std::min(reason.find('\n'), reason.find(". ")))));
  }
  if (device->is_meta()) throw UsageError("--device: cannot use meta: its tensors hold no numbers");
  return *device;
}

void check_folder(const std::string& folder) {
  std::error_code error;  // one that may not be looked at is not there either
  MISTRAL_EXT_CHECK(
      std::filesystem::is_directory(folder, error), "there is no folder {}", io::printable(folder));
}

std::shared_ptr<models::MistralForCausalLM> load_model(const std::string& folder,
                                                       const ModelOptions& options) {
  check_folder(folder);
  const auto device = chosen_device(options);
  const auto ranks = join_ranks(device);
  if (is_prepacked_alone(folder)) {
    return models::load_prepacked(
        folder, {.dtype = chosen_dtype(options), .device = device, .parallel = ranks});
  }
  return models::load_pretrained(
      folder, {.dtype = chosen_dtype(options), .device = device, .parallel = ranks});
}

std::string name_of(at::ScalarType dtype) {
  for (const auto& [name, known] : kDtypes) {
    if (dtype == known) return name;
  }
  return c10::toString(dtype);
}

}  // namespace mistral_ext::programs
