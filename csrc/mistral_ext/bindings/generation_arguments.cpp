#include "mistral_ext/bindings/generation_arguments.h"

namespace py = pybind11;

namespace mistral_ext::bindings {

generation::GenerateInputs make_inputs(const std::optional<at::Tensor>& input_ids,
                                       const std::optional<at::Tensor>& inputs_embeds,
                                       const std::optional<at::Tensor>& attention_mask,
                                       const std::optional<at::Tensor>& position_ids,
                                       const std::shared_ptr<cache::KVCache>& cache) {
  generation::GenerateInputs inputs;
  inputs.input_ids = input_ids.value_or(at::Tensor());
  inputs.inputs_embeds = inputs_embeds.value_or(at::Tensor());
  inputs.attention_mask = attention_mask.value_or(at::Tensor());
  inputs.position_ids = position_ids.value_or(at::Tensor());
  inputs.cache = cache.get();
  return inputs;
}

generation::Callbacks make_callbacks(const py::object& on_step, const py::object& on_overlength) {
  generation::Callbacks callbacks;
  callbacks.check_interrupt = [] {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };
  if (!on_step.is_none()) {
    callbacks.on_step = [&on_step](const generation::Step& step) {
      const py::gil_scoped_acquire gil;
      const py::object rows = on_step(step.tokens, step.sequences);
      return rows.is_none() ? at::Tensor() : py::cast<at::Tensor>(rows);
    };
  }
  if (!on_overlength.is_none()) {
    callbacks.on_overlength = [&on_overlength](int64_t length) {
      const py::gil_scoped_acquire gil;
      on_overlength(length);
    };
  }
  return callbacks;
}

}  // namespace mistral_ext::bindings
