#include "mistral_ext/models/load.h"

#include "mistral_ext/core/check.h"

namespace mistral_ext::models {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

void check_tensor(const std::string& name, const at::Tensor& tensor, at::IntArrayRef shape) {
  MISTRAL_EXT_CHECK(tensor.defined() && tensor.sizes() == shape,
                    "load: {} must have shape {}, got {}",
                    name,
                    c10::str(shape),
                    tensor.defined() ? c10::str(tensor.sizes()) : "no tensor");
  MISTRAL_EXT_CHECK(tensor.is_floating_point(),
                    "load: {} must be floating point, got {}",
                    name,
                    c10::toString(tensor.scalar_type()));
}

}  // namespace

std::map<std::string, layers::WeightedModule*> weighted_modules(const MistralForCausalLM& model) {
  std::map<std::string, layers::WeightedModule*> found;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (auto* module = dynamic_cast<layers::WeightedModule*>(item.value().get())) {
      found.emplace(item.key() + ".weight", module);
    }
  }
  return found;
}

void load_parameters(MistralForCausalLM& model, const io::StateDict& state) {
  const auto modules = weighted_modules(model);
  const bool head_is_embedding = model.config().tie_word_embeddings && !state.contains(kHead);
  for (const auto& [name, tensor] : state) {
    MISTRAL_EXT_CHECK(modules.contains(name), "load: {} is not a parameter of this model", name);
  }
  std::map<std::string, at::Tensor> found;
  for (const auto& [name, module] : modules) {
    const auto& source = head_is_embedding && name == kHead ? kEmbedding : name;
    const auto entry = state.find(source);
    MISTRAL_EXT_CHECK(entry != state.end(), "load: {} is missing", source);
    check_tensor(source, entry->second, module->shape());
    found.emplace(name, entry->second);
  }
  const auto& first = found.at(kEmbedding);
  for (const auto& [name, tensor] : found) {
    MISTRAL_EXT_CHECK(
        tensor.device() == first.device() && tensor.scalar_type() == first.scalar_type(),
        "load: {} must be {} on {} as the embedding, got {} on {}",
        name,
        c10::toString(first.scalar_type()),
        first.device().str(),
        c10::toString(tensor.scalar_type()),
        tensor.device().str());
  }
  for (const auto& [name, module] : modules) {
    const auto& weight = found.at(name);
    if (name == kHead && weight.is_same(first)) {
      module->tie_weight(weight);
    } else {
      module->set_weight(weight);
    }
  }
}

void set_parameter(MistralForCausalLM& model, const std::string& name, const at::Tensor& tensor) {
  const auto modules = weighted_modules(model);
  const auto found = modules.find(name);
  MISTRAL_EXT_CHECK(found != modules.end(), "load: {} is not a parameter of this model", name);
  check_tensor(name, tensor, found->second->shape());
  found->second->set_weight(tensor);
}

io::StateDict state_dict(const MistralForCausalLM& model) {
  io::StateDict state;
  for (const auto& [name, module] : weighted_modules(model)) state.emplace(name, module->weight());
  if (state.at(kHead).is_same(state.at(kEmbedding))) state.erase(kHead);
  return state;
}

}  // namespace mistral_ext::models
