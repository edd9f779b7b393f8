#include <c10/core/InferenceMode.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <tuple>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/core/config.h"
#include "mistral_ext/layers/rope_init.h"

namespace py = pybind11;

namespace mistral_ext::bindings {
namespace {

ConfigValue to_config_value(py::handle object);

ConfigMap to_config_map(const py::dict& dict) {
  ConfigMap map;
  for (const auto& [key, value] : dict) {
    // Keys that are no strings (id2label's integers) name nothing the model reads.
    if (py::isinstance<py::str>(key)) map[py::cast<std::string>(key)] = to_config_value(value);
  }
  return map;
}

// What has no counterpart in JSON becomes its text: the reader then names it in its message.
ConfigValue to_config_value(py::handle object) {
  if (object.is_none()) return {nullptr};
  if (py::isinstance<py::bool_>(object)) return {py::cast<bool>(object)};
  if (py::isinstance<py::int_>(object)) {
    int overflow = 0;
    const auto x = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
    if (overflow == 0) return {static_cast<int64_t>(x)};
    return {py::cast<double>(object)};
  }
  if (py::isinstance<py::float_>(object)) return {py::cast<double>(object)};
  if (py::isinstance<py::str>(object)) return {py::cast<std::string>(object)};
  if (py::isinstance<py::dict>(object)) {
    return {to_config_map(py::reinterpret_borrow<py::dict>(object))};
  }
  if (py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object)) {
    ConfigList list;
    for (const auto item : object) list.push_back(to_config_value(item));
    return {std::move(list)};
  }
  return {py::cast<std::string>(py::str(object))};
}

}  // namespace

void bind_config(py::module_& m) {
  py::class_<MistralConfig>(
      m, "MistralConfig", "The architecture of one checkpoint, validated. Read-only.")
      .def_static(
          "from_dict",
          [](const py::dict& dict) { return MistralConfig::from_map(to_config_map(dict)); },
          py::arg("config"),
          "From the dictionary of a config.json, in either rope schema. ValueError names a field\n"
          "that cannot work.")
      .def(
          "rope_frequencies",
          [](const MistralConfig& config, int64_t seq_len, const at::Device& device) {
            // Of use to passes that record gradients, wherever it is asked for.
            const c10::InferenceMode ordinary(false);
            auto frequencies = layers::rope_frequencies(config, seq_len, device);
            return std::make_tuple(std::move(frequencies.inv_freq), frequencies.attention_factor);
          },
          py::arg("seq_len"),
          py::arg("device"),
          "(fp32 [head_dim / 2], what multiplies cosine and sine); seq_len is read by a dynamic "
          "rope.")
      .def_readonly("model_type", &MistralConfig::model_type)
      .def_readonly("vocab_size", &MistralConfig::vocab_size)
      .def_readonly("hidden_size", &MistralConfig::hidden_size)
      .def_readonly("intermediate_size", &MistralConfig::intermediate_size)
      .def_readonly("num_hidden_layers", &MistralConfig::num_hidden_layers)
      .def_readonly("num_attention_heads", &MistralConfig::num_attention_heads)
      .def_readonly("num_key_value_heads", &MistralConfig::num_key_value_heads)
      .def_readonly("head_dim", &MistralConfig::head_dim)
      .def_readonly("hidden_act", &MistralConfig::hidden_act)
      .def_readonly("max_position_embeddings", &MistralConfig::max_position_embeddings)
      .def_readonly("rms_norm_eps", &MistralConfig::rms_norm_eps)
      .def_readonly("tie_word_embeddings", &MistralConfig::tie_word_embeddings)
      .def_readonly("attention_dropout", &MistralConfig::attention_dropout)
      .def_readonly("layer_windows", &MistralConfig::layer_windows)
      .def_property_readonly("rope_type",
                             [](const MistralConfig& config) { return config.rope.rope_type; })
      .def_property_readonly("rope_theta",
                             [](const MistralConfig& config) { return config.rope.rope_theta; });
}

}  // namespace mistral_ext::bindings
