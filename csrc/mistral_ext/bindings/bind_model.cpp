#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/bindings/shared_weights.h"
#include "mistral_ext/models/load.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace py = pybind11;

namespace mistral_ext::bindings {

using models::MistralForCausalLM;

namespace {

at::Tensor or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.value_or(at::Tensor());
}

// The tensor first: a tensor of one element would pass for an integer.
using LogitsToKeep = std::variant<at::Tensor, int64_t>;

models::LogitsToKeep to_models(const LogitsToKeep& logits_to_keep) {
  if (const auto* indices = std::get_if<at::Tensor>(&logits_to_keep)) return *indices;
  return std::get<int64_t>(logits_to_keep);
}

// (logits, or None with compute_logits=False; last hidden state; hidden states, empty unless asked)
using ForwardResult = std::tuple<std::optional<at::Tensor>, at::Tensor, std::vector<at::Tensor>>;

ForwardResult forward(MistralForCausalLM& model,
                      const std::optional<at::Tensor>& input_ids,
                      const std::optional<at::Tensor>& inputs_embeds,
                      const std::optional<at::Tensor>& attention_mask,
                      const std::optional<at::Tensor>& qk_mask,
                      const std::optional<at::Tensor>& position_ids,
                      const std::shared_ptr<cache::KVCache>& cache,
                      const LogitsToKeep& logits_to_keep,
                      bool compute_logits,
                      bool output_hidden_states,
                      bool ignore_packing,
                      const std::vector<bool>& checkpointed_layers,
                      bool embeddings_require_grad) {
  models::ModelInputs inputs;
  inputs.input_ids = or_undefined(input_ids);
  inputs.inputs_embeds = or_undefined(inputs_embeds);
  inputs.attention_mask = or_undefined(attention_mask);
  inputs.qk_mask = or_undefined(qk_mask);
  inputs.position_ids = or_undefined(position_ids);
  inputs.cache = cache.get();
  inputs.ignore_packing = ignore_packing;
  inputs.output_hidden_states = output_hidden_states;
  inputs.checkpointed_layers = checkpointed_layers;
  inputs.embeddings_require_grad = embeddings_require_grad;
  const py::gil_scoped_release no_gil;
  if (!compute_logits) {
    auto outputs = model.model().forward(inputs);
    return {std::nullopt, outputs.last_hidden_state, std::move(outputs.hidden_states)};
  }
  auto outputs = model.forward(inputs, to_models(logits_to_keep));
  return {outputs.logits, outputs.model.last_hidden_state, std::move(outputs.model.hidden_states)};
}

}  // namespace

void bind_model(py::module_& m) {
  py::class_<MistralForCausalLM, std::shared_ptr<MistralForCausalLM>>(
      m, "MistralForCausalLM", "The C++ model. Made without storage; its parameters are put in.")
      .def(py::init<const MistralConfig&, const parallel::Context&>(),
           py::arg("config"),
           py::arg("context") = parallel::Context())
      .def_property_readonly("config", &MistralForCausalLM::config)
      .def_property(
          "rope_length",
          [](MistralForCausalLM& model) { return model.model().rotary_emb().length(); },
          [](MistralForCausalLM& model, int64_t length) {
            model.model().rotary_emb().set_length(length);
          },
          "The length that the frequencies of a dynamic rope are made for.")
      .def(
          "load_parameters",
          [](MistralForCausalLM& model, const io::StateDict& state) {
            models::load_parameters(model, state);
          },
          py::arg("state_dict"),
          "Shares the tensors' storage. ValueError for a missing, unknown or mis-shaped one.")
      .def(
          "state_dict",
          [](const MistralForCausalLM& model) { return models::state_dict(model); },
          "The parameters by Hugging Face's names, sharing storage; a tied head is left out.")
      .def("forward",
           &forward,
           py::kw_only(),
           py::arg("input_ids") = py::none(),
           py::arg("inputs_embeds") = py::none(),
           py::arg("attention_mask") = py::none(),
           py::arg("qk_mask") = py::none(),
           py::arg("position_ids") = py::none(),
           py::arg("cache") = py::none(),
           py::arg("logits_to_keep") = 0,
           py::arg("compute_logits") = true,
           py::arg("output_hidden_states") = false,
           py::arg("ignore_packing") = false,
           py::arg("checkpointed_layers") = std::vector<bool>(),
           py::arg("embeddings_require_grad") = false,
           "Returns (logits, last_hidden_state, hidden_states). The GIL is released meanwhile.");

  py::class_<SharedWeights>(
      m, "SharedWeights", "A C++ model whose weights are those of a live Hugging Face module.")
      .def(py::init<const MistralConfig&, const py::dict&, parallel::Context>(),
           py::arg("config"),
           py::arg("module_types"),
           py::arg("context") = parallel::Context(),
           "module_types: for each role (causal_lm, model, layers, layer, attention, rotary, mlp,\n"
           "norm, linear, embedding, activation, parameter) the tuple of classes whose arithmetic\n"
           "C++ has; and under ignored_hooks the codes of hooks that need not run. Without\n"
           "causal_lm the module is the backbone, and forward needs compute_logits=False.")
      .def("refresh",
           &SharedWeights::refresh,
           py::arg("module"),
           "Shares every weight of the module as it is now. Returns why the module's own Python\n"
           "has to run instead, or an empty string. ValueError where a shape does not fit.")
      .def_property_readonly("model",
                             &SharedWeights::model,
                             "The model with the weights of the last refresh, or None where Python "
                             "has to run.\nOne that was handed out never changes its weights.");
}

}  // namespace mistral_ext::bindings
