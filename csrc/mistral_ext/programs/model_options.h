#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace mistral_ext::programs {

// The options of both programs: how a model runs.
struct ModelOptions {
  std::string dtype = "auto";
  std::string device;  // empty: a GPU where there is one
  std::optional<int> threads;
};

void add_model_options(CLI::App& app, ModelOptions& options);

// Sets torch's number of threads where the options say one.
void apply_threads(const ModelOptions& options);

// Absent: the checkpoint's.
std::optional<at::ScalarType> chosen_dtype(const ModelOptions& options);

// Throws UsageError where there is no such device.
at::Device chosen_device(const ModelOptions& options);

// Throws ValueError where there is no such folder.
void check_folder(const std::string& folder);

// The model of a folder, of its prepacked checkpoint where it has no other. What is wrong with the
// folder is an error that names it. Started by torchrun, mpirun or srun: this process's part of the
// model; standard output is then the first process's alone.
std::shared_ptr<models::MistralForCausalLM> load_model(const std::string& folder,
                                                       const ModelOptions& options);

// As --dtype has it: float32, bfloat16, float16.
std::string name_of(at::ScalarType dtype);

}  // namespace mistral_ext::programs
