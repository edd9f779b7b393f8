#include "mistral_ext/models/cuda/step_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "mistral_ext/models/load.h"

namespace mistral_ext::models {
namespace {

constexpr std::array<const char*, kWeightsBeforeLayers> kEnds = {
    "model.embed_tokens", "model.norm", "lm_head"};
constexpr std::array<const char*, kWeightsOfLayer> kOfLayer = {"input_layernorm",
                                                               "self_attn.q_proj",
                                                               "self_attn.k_proj",
                                                               "self_attn.v_proj",
                                                               "self_attn.o_proj",
                                                               "post_attention_layernorm",
                                                               "mlp.gate_proj",
                                                               "mlp.up_proj",
                                                               "mlp.down_proj"};

}  // namespace

StepWeights::StepWeights(const MistralForCausalLM& model) {
  const auto all = weighted_modules(model);
  const auto add = [&](const std::string& name) { modules_.push_back(all.at(name + ".weight")); };
  for (const char* name : kEnds) add(name);
  for (int64_t i = 0; i < model.config().num_hidden_layers; ++i) {
    for (const char* name : kOfLayer) add(fmt::format("model.layers.{}.{}", i, name));
  }
}

bool StepWeights::serve() const {
  const auto& first = embed_tokens();
  const bool is_half = first.scalar_type() == at::kBFloat16 || first.scalar_type() == at::kHalf;
  return is_half && first.is_cuda() && std::ranges::all_of(modules_, [&](const auto* module) {
           const auto& weight = module->weight();
           return weight.scalar_type() == first.scalar_type() &&
                  weight.device() == first.device() && weight.is_contiguous() &&
                  reinterpret_cast<uintptr_t>(weight.const_data_ptr()) % 16 == 0;
         });
}

std::vector<const void*> StepWeights::addresses() const {
  std::vector<const void*> all;
  all.reserve(modules_.size());
  for (const auto* module : modules_) all.push_back(module->weight().const_data_ptr());
  return all;
}

bool StepWeights::are_at(const std::vector<const void*>& addresses) const {
  return std::ranges::equal(modules_, addresses, {}, [](const auto* module) {
    return module->weight().const_data_ptr();
  });
}

}  // namespace mistral_ext::models
