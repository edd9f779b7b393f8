#include "mistral_ext/bindings/shared_weights.h"

#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "mistral_ext/models/load.h"

namespace py = pybind11;

namespace mistral_ext::bindings {
namespace {

// The name of a module or dictionary entry, made once.
struct Name {
  explicit Name(const char* text)
      : text(text), object(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(text))) {}
  const char* text;
  py::object object;
};

PyObject* lookup(py::handle dict, const Name& key) {
  return PyDict_GetItemWithError(dict.ptr(), key.object.ptr());  // borrowed
}

// Leaked on purpose: destroying Python objects after the interpreter has gone would crash.
struct Names {
  Name modules{"_modules"}, parameters{"_parameters"}, forward{"forward"}, weight{"weight"},
      bias{"bias"}, training{"training"}, attention_dropout{"attention_dropout"},
      scaling{"scaling"}, is_causal{"is_causal"}, max_norm{"max_norm"},
      scale_grad_by_freq{"scale_grad_by_freq"}, sparse{"sparse"},
      variance_epsilon{"variance_epsilon"};
  std::vector<Name> hooks;
  Name model{"model"}, lm_head{"lm_head"}, embed_tokens{"embed_tokens"}, layers{"layers"},
      norm{"norm"}, rotary_emb{"rotary_emb"}, self_attn{"self_attn"}, mlp{"mlp"}, q_proj{"q_proj"},
      k_proj{"k_proj"}, v_proj{"v_proj"}, o_proj{"o_proj"}, gate_proj{"gate_proj"},
      up_proj{"up_proj"}, down_proj{"down_proj"}, act_fn{"act_fn"},
      input_layernorm{"input_layernorm"}, post_attention_layernorm{"post_attention_layernorm"};

  Names() {
    for (const char* hook :
         {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"}) {
      hooks.emplace_back(hook);
    }
  }

  static const Names& get() {
    static const Names* names = new Names;
    return *names;
  }
};

struct Fallback {
  std::string reason;
};

// The class with its module, since a class that replaces another often has its name.
std::string class_of(py::handle object) {
  const auto type = py::type::handle_of(object);
  return py::str(type.attr("__name__")).cast<std::string>() + " (" +
         py::str(type.attr("__module__")).cast<std::string>() + ")";
}

// Whether the hooks registered in this dictionary are all functions of one of the codes given.
bool all_of_codes(PyObject* hooks, const py::tuple& codes) {
  const auto is_known = [&](PyObject* hook) {
    if (!PyFunction_Check(hook)) return false;
    PyObject* const code = PyFunction_GetCode(hook);
    return std::any_of(codes.begin(), codes.end(), [&](py::handle c) { return c.ptr() == code; });
  };
  Py_ssize_t position = 0;
  PyObject* hook = nullptr;
  while (PyDict_Next(hooks, &position, nullptr, &hook) != 0) {
    if (!is_known(hook)) return false;
  }
  return true;
}

// The attribute as a number; NaN where it is none.
double number(py::handle attributes, const Name& name) {
  PyObject* value = lookup(attributes, name);
  if (value == nullptr) return std::nan("");
  const double x = PyFloat_AsDouble(value);
  if (x == -1.0 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return std::nan("");
  }
  return x;
}

}  // namespace

// One walk: throws Fallback at the first thing that needs Python.
class SharedWeights::Walk {
 public:
  Walk(const py::dict& types, const MistralConfig& config) : types_(types), config_(config) {}

  // The weights met, in order.
  const std::vector<at::Tensor>& weights() const { return weights_; }

  // The child `name` of the module with attributes `parent`; its attributes, checked.
  py::object child(py::handle parent, const Name& name, const char* role) {
    PyObject* modules = lookup(parent, names_.modules);
    PyObject* module = modules == nullptr ? nullptr : lookup(modules, name);
    if (module == nullptr || module == Py_None) {
      throw Fallback{std::string("no module ") + name.text};
    }
    return checked(module, name.text, role);
  }

  py::object checked(py::handle module, const char* name, const char* role) {
    const auto allowed = py::reinterpret_borrow<py::tuple>(types_[role]);
    PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(module.ptr()));
    bool known = false;
    for (const auto candidate : allowed) known = known || candidate.ptr() == type;
    if (!known) {
      throw Fallback{std::string(name) + " is a " + class_of(module)};
    }
    auto attributes =
        py::reinterpret_steal<py::object>(PyObject_GenericGetDict(module.ptr(), nullptr));
    if (!attributes) throw py::error_already_set();
    for (const Name& hook : names_.hooks) {
      PyObject* registered = lookup(attributes, hook);
      if (registered == nullptr || !PyDict_Check(registered) || PyDict_Size(registered) == 0) {
        continue;
      }
      if (!all_of_codes(registered, py::reinterpret_borrow<py::tuple>(types_["ignored_hooks"]))) {
        throw Fallback{std::string(name) + " has a hook"};
      }
    }
    if (lookup(attributes, names_.forward) != nullptr) {
      throw Fallback{std::string("the forward of ") + name + " was replaced"};
    }
    return attributes;
  }

  // A norm is shared where its epsilon is the configuration's.
  void share_norm(py::handle parent, const Name& name) {
    const auto attributes = share(parent, name, "norm");
    if (number(attributes, names_.variance_epsilon) != config_.rms_norm_eps) {
      throw Fallback{std::string(name.text) + " has another variance_epsilon than the others"};
    }
  }

  // The attention module's own settings are those of C++.
  void check_attention(py::handle attributes) {
    const double scale = std::pow(static_cast<double>(config_.head_dim), -0.5);
    if (std::abs(number(attributes, names_.scaling) - scale) > 1e-12) {
      throw Fallback{"the scaling of self_attn is not head_dim^-0.5"};
    }
    PyObject* const is_causal = lookup(attributes, names_.is_causal);
    if (is_causal != nullptr && is_causal != Py_True) {
      throw Fallback{"is_causal of self_attn is not True"};
    }
    if (lookup(attributes, names_.training) == Py_True &&
        number(attributes, names_.attention_dropout) != 0.0) {
      throw Fallback{"attention_dropout is active"};
    }
  }

  // Notes the weight of child `name`; returns the child's attributes.
  py::object share(py::handle parent, const Name& name, const char* role) {
    auto attributes = child(parent, name, role);
    PyObject* parameters = lookup(attributes, names_.parameters);
    PyObject* weight = parameters == nullptr ? nullptr : lookup(parameters, names_.weight);
    if (weight == nullptr || !THPVariable_Check(weight)) {
      throw Fallback{std::string(name.text) + ".weight is not a parameter"};
    }
    if (PyObject* bias = lookup(parameters, names_.bias); bias != nullptr && bias != Py_None) {
      throw Fallback{std::string(name.text) + " has a bias"};
    }
    const auto allowed = py::reinterpret_borrow<py::tuple>(types_["parameter"]);
    PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(weight));
    bool known = false;
    for (const auto candidate : allowed) known = known || candidate.ptr() == type;
    if (!known) {
      throw Fallback{std::string(name.text) + ".weight is a " + class_of(weight)};
    }
    const at::Tensor& tensor = THPVariable_Unpack(weight);
    check_uniform(name.text, tensor);
    weights_.push_back(tensor);
    return attributes;
  }

 private:
  void check_uniform(const char* name, const at::Tensor& tensor) {
    if (tensor.is_meta()) throw Fallback{std::string(name) + ".weight is on the meta device"};
    if (!tensor.is_floating_point() || tensor.layout() != at::kStrided) {
      throw Fallback{std::string(name) + ".weight is not a dense floating-point tensor"};
    }
    if (!first_) {
      first_ = tensor.options();
    } else if (tensor.scalar_type() != at::typeMetaToScalarType(first_->dtype())) {
      throw Fallback{std::string(name) + ".weight has another dtype than the embedding"};
    } else if (tensor.device() != first_->device()) {
      throw Fallback{std::string(name) + ".weight is on another device than the embedding"};
    }
  }

  const Names& names_ = Names::get();
  const py::dict& types_;
  const MistralConfig& config_;
  std::optional<at::TensorOptions> first_;
  std::vector<at::Tensor> weights_;
};

namespace {

// The modules that hold weights, in the order in which refresh() meets theirs.
std::vector<layers::WeightedModule*> slots_in_order(const models::MistralForCausalLM& model,
                                                    bool has_head) {
  const auto found = models::weighted_modules(model);
  std::vector<layers::WeightedModule*> slots{found.at("model.embed_tokens.weight")};
  for (int64_t i = 0; i < model.config().num_hidden_layers; ++i) {
    for (const char* name : {"input_layernorm",
                             "self_attn.q_proj",
                             "self_attn.k_proj",
                             "self_attn.v_proj",
                             "self_attn.o_proj",
                             "post_attention_layernorm",
                             "mlp.gate_proj",
                             "mlp.up_proj",
                             "mlp.down_proj"}) {
      slots.push_back(found.at("model.layers." + std::to_string(i) + "." + name + ".weight"));
    }
  }
  slots.push_back(found.at("model.norm.weight"));
  if (has_head) slots.push_back(found.at("lm_head.weight"));
  return slots;
}

}  // namespace

SharedWeights::SharedWeights(MistralConfig config,
                             const py::dict& module_types,
                             parallel::Context context)
    : config_(std::move(config)),
      context_(std::move(context)),
      types_(module_types),
      has_head_(types_.contains("causal_lm")) {}

std::string SharedWeights::refresh(py::handle module) {
  const Names& n = Names::get();
  Walk walk(types_, config_);
  try {
    const auto top = walk.checked(module, "the model", has_head_ ? "causal_lm" : "model");
    const auto model = has_head_ ? walk.child(top, n.model, "model") : top;
    const auto embedding = walk.share(model, n.embed_tokens, "embedding");
    if (PyObject* most = lookup(embedding, n.max_norm); most != nullptr && most != Py_None) {
      throw Fallback{"embed_tokens has a max_norm"};
    }
    for (const Name* flag : {&n.scale_grad_by_freq, &n.sparse}) {
      if (lookup(embedding, *flag) == Py_True) {
        throw Fallback{std::string("embed_tokens has ") + flag->text};
      }
    }
    const auto list = walk.child(model, n.layers, "layers");
    PyObject* const layers = lookup(list, n.modules);
    if (PyDict_Size(layers) != config_.num_hidden_layers) {
      throw Fallback{"layers has " + std::to_string(PyDict_Size(layers)) +
                     " entries, the configuration " + std::to_string(config_.num_hidden_layers)};
    }
    Py_ssize_t position = 0;
    PyObject* layer_module = nullptr;
    while (PyDict_Next(layers, &position, nullptr, &layer_module) != 0) {
      const auto layer = walk.checked(layer_module, "a decoder layer", "layer");
      walk.share_norm(layer, n.input_layernorm);
      const auto attention = walk.child(layer, n.self_attn, "attention");
      walk.check_attention(attention);
      walk.share(attention, n.q_proj, "linear");
      walk.share(attention, n.k_proj, "linear");
      walk.share(attention, n.v_proj, "linear");
      walk.share(attention, n.o_proj, "linear");
      walk.share_norm(layer, n.post_attention_layernorm);
      const auto mlp = walk.child(layer, n.mlp, "mlp");
      walk.share(mlp, n.gate_proj, "linear");
      walk.share(mlp, n.up_proj, "linear");
      walk.share(mlp, n.down_proj, "linear");
      walk.child(mlp, n.act_fn, "activation");
    }
    walk.share_norm(model, n.norm);
    walk.child(model, n.rotary_emb, "rotary");
    if (has_head_) walk.share(top, n.lm_head, "linear");
  } catch (const Fallback& fallback) {
    // The module may have let go of its weights (moved, sharded, quantised): they must not be kept
    // alive here.
    model_ = nullptr;
    return fallback.reason;
  }
  // The same tensor with another shape had its storage swapped: set_weight says so.
  const auto is_held = [](const layers::WeightedModule* slot, const at::Tensor& weight) {
    return slot->weight().is_same(weight) && weight.sizes() == slot->shape();
  };
  const auto& weights = walk.weights();
  if (model_ != nullptr && std::ranges::equal(slots_, weights, is_held)) return "";
  model_ = nullptr;
  auto model = std::make_shared<models::MistralForCausalLM>(config_, context_);
  slots_ = slots_in_order(*model, has_head_);
  for (size_t i = 0; i < weights.size(); ++i) slots_[i]->set_weight(weights[i]);
  model_ = std::move(model);
  return "";
}

}  // namespace mistral_ext::bindings
