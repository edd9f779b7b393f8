#include "mistral_ext/models/checkpointed_layer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

namespace mistral_ext::models {
namespace {

std::vector<layers::WeightedModule*> weighted_modules_of(const DecoderLayer& layer) {
  std::vector<layers::WeightedModule*> found;
  for (const auto& module : layer.modules(/*include_self=*/false)) {
    if (auto* weighted = dynamic_cast<layers::WeightedModule*>(module.get())) {
      found.push_back(weighted);
    }
  }
  return found;
}

// What a layer needs beside tensors with gradients.
struct Recipe : torch::CustomClassHolder {
  Recipe(MistralConfig config,
         parallel::Context ranks,
         layers::RotaryAngles angles,
         layers::Visibility visibility)
      : config(std::move(config)),
        ranks(std::move(ranks)),
        angles(std::move(angles)),
        visibility(std::move(visibility)) {}

  at::Tensor run(const DecoderLayer& layer, const at::Tensor& hidden_states) const {
    ResidualStream stream{hidden_states, at::Tensor()};
    const LayerContext context{angles, visibility, /*cache=*/nullptr, /*differentiable=*/false};
    layer.forward(stream, context, /*input=*/nullptr);
    return at::add(stream.pending, stream.sum);
  }

  MistralConfig config;
  parallel::Context ranks;
  layers::RotaryAngles angles;
  layers::Visibility visibility;
};

// Inputs: the hidden states, then the weights. That the weights are inputs, and what comes back are
// their gradients, makes frozen ones, gradients asked for by name and hooks on parameters (of
// distributed training) work as anywhere.
class CheckpointedLayer : public torch::autograd::Function<CheckpointedLayer> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx,
                            const at::Tensor& hidden_states,
                            at::TensorList weights,
                            const DecoderLayer* layer,
                            const c10::intrusive_ptr<Recipe>& recipe) {
    torch::autograd::variable_list saved = {hidden_states};
    saved.insert(saved.end(), weights.begin(), weights.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    return recipe->run(*layer, hidden_states);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "gradient checkpointing: create_graph must be False, got True: a checkpointed "
                "layer is differentiable once");
    const auto recipe =
        c10::static_intrusive_pointer_cast<Recipe>(ctx->saved_data["recipe"].toCapsule());
    // Below autocast, where the forward ran too.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const at::AutoGradMode recording(true);
    auto inputs = ctx->get_saved_variables();
    torch::autograd::variable_list wanted;
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i] = inputs[i].detach();
      if (!ctx->needs_input_grad(i)) continue;
      inputs[i].set_requires_grad(true);
      wanted.push_back(inputs[i]);
    }
    const DecoderLayer layer(recipe->config, recipe->ranks);
    const auto modules = weighted_modules_of(layer);
    for (size_t i = 0; i < modules.size(); ++i) modules[i]->set_weight(inputs[i + 1]);
    const auto output = recipe->run(layer, inputs[0]);
    const auto found = torch::autograd::grad({output},
                                             wanted,
                                             grads,
                                             /*retain_graph=*/std::nullopt,
                                             /*create_graph=*/false,
                                             /*allow_unused=*/true);
    // One place an argument: the layer and the recipe have none.
    torch::autograd::variable_list result(inputs.size() + 2);
    for (size_t i = 0, next = 0; i < inputs.size(); ++i) {
      if (inputs[i].requires_grad()) result[i] = found[next++];
    }
    return result;
  }
};

}  // namespace

at::Tensor forward_checkpointed(const DecoderLayer& layer,
                                const MistralConfig& config,
                                const parallel::Context& ranks,
                                const at::Tensor& hidden_states,
                                const LayerContext& context) {
  std::vector<at::Tensor> weights;
  for (const auto* module : weighted_modules_of(layer)) weights.push_back(module->weight());
  return CheckpointedLayer::apply(
      hidden_states,
      at::TensorList(weights),
      &layer,
      c10::make_intrusive<Recipe>(config, ranks, context.angles, context.visibility));
}

}  // namespace mistral_ext::models
