#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/generation/load_generation_config.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/models/save_pretrained.h"

namespace py = pybind11;

namespace mistral_ext::bindings {

void bind_checkpoint(py::module_& m) {
  m.def(
      "load_pretrained",
      [](const std::filesystem::path& folder,
         std::optional<at::ScalarType> dtype,
         const at::Device& device,
         const parallel::Context& context) {
        const py::gil_scoped_release no_gil;
        return models::load_pretrained(folder,
                                       {.dtype = dtype, .device = device, .parallel = context});
      },
      py::arg("folder"),
      py::kw_only(),
      py::arg("dtype") = py::none(),
      py::arg("device") = at::Device(at::kCPU),
      py::arg("context") = parallel::Context(),
      "Loads a folder as C++ programs do. On the CPU, tensors that are stored as they are wanted\n"
      "are mapped, not read. dtype=None: the configuration's, else the embedding's.");
  m.def(
      "save_pretrained",
      [](const models::MistralForCausalLM& model,
         const std::filesystem::path& folder,
         std::optional<int64_t> max_shard_size) {
        const py::gil_scoped_release no_gil;
        models::SaveOptions options;
        options.max_shard_size = max_shard_size.value_or(options.max_shard_size);
        models::save_pretrained(model, folder, {}, options);
      },
      py::arg("model"),
      py::arg("folder"),
      py::kw_only(),
      py::arg("max_shard_size") = py::none(),
      "Writes config.json and model.safetensors, or several files and their index where the\n"
      "tensors take more than max_shard_size bytes; whole or not at all.");
  m.def(
      "load_prepacked",
      [](const std::filesystem::path& folder,
         std::optional<at::ScalarType> dtype,
         const at::Device& device,
         bool verify) {
        const py::gil_scoped_release no_gil;
        return models::load_prepacked(folder, {.dtype = dtype, .device = device, .verify = verify});
      },
      py::arg("folder"),
      py::kw_only(),
      py::arg("dtype") = py::none(),
      py::arg("device") = at::Device(at::kCPU),
      py::arg("verify") = false,
      "Loads a prepacked checkpoint as C++ programs do.");
  m.def(
      "read_prepacked",
      [](const std::filesystem::path& folder,
         std::optional<at::ScalarType> dtype,
         const at::Device& device,
         const parallel::Context& context,
         bool verify) {
        const py::gil_scoped_release no_gil;
        auto weights = models::read_prepacked(
            folder, {.dtype = dtype, .device = device, .parallel = context, .verify = verify});
        return std::pair(std::move(weights.config_text), std::move(weights.tensors));
      },
      py::arg("folder"),
      py::kw_only(),
      py::arg("dtype") = py::none(),
      py::arg("device") = at::Device(at::kCPU),
      py::arg("context") = parallel::Context(),
      py::arg("verify") = false,
      "The configuration as JSON, and the tensors by name, of a prepacked checkpoint.");
  m.def(
      "save_prepacked",
      [](const std::string& config,
         const io::StateDict& tensors,
         const std::filesystem::path& folder) {
        const py::gil_scoped_release no_gil;
        models::save_prepacked(io::parse_config(config, "save: config"), tensors, folder);
      },
      py::arg("config"),
      py::arg("tensors"),
      py::arg("folder"),
      "Writes a prepacked checkpoint, whole or not at all. config: JSON.");
  m.def(
      "load_generation_config",
      [](const std::filesystem::path& folder) {
        return generation::load_generation_config(folder);
      },
      py::arg("folder"),
      "The GenerationConfig of a model's folder.");
}

}  // namespace mistral_ext::bindings
