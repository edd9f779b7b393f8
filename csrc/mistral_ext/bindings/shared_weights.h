#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::bindings {

// Keeps the weights of a C++ model those of a live Hugging Face module. refresh() walks the Python
// modules before each call of the C++ model, so whatever was done to them since (moved, replaced,
// tied, resized, re-assigned) is seen; a weight is shared, never copied. The walk reads
// dictionaries alone, some 50 lookups a layer.
//
// It also finds what only Python can run: a module of another class than those named (PEFT,
// quantisation, parametrisation), a hook, a forward replaced on the instance, active dropout.
//
// The module is a causal language model, or, where module_types names no class for one, the
// backbone alone: the C++ model then has no weight for its head.
class SharedWeights {
 public:
  SharedWeights(std::shared_ptr<models::MistralForCausalLM> model,
                const pybind11::dict& module_types);

  // Why the module's own Python has to run, or ""; in the first case no weight is held any more.
  // Throws ValueError where a shape does not fit.
  std::string refresh(pybind11::handle module);

 private:
  struct LayerSlots {
    layers::WeightedModule* q_proj;
    layers::WeightedModule* k_proj;
    layers::WeightedModule* v_proj;
    layers::WeightedModule* o_proj;
    layers::WeightedModule* gate_proj;
    layers::WeightedModule* up_proj;
    layers::WeightedModule* down_proj;
    layers::WeightedModule* input_layernorm;
    layers::WeightedModule* post_attention_layernorm;
  };

  class Walk;

  std::shared_ptr<models::MistralForCausalLM> model_;
  pybind11::dict types_;
  layers::WeightedModule* embed_tokens_;
  layers::WeightedModule* norm_;
  layers::WeightedModule* lm_head_;
  std::vector<LayerSlots> layer_slots_;
  std::vector<layers::WeightedModule*> slots_;  // all of these
  bool has_head_;
  bool holds_weights_ = false;
};

}  // namespace mistral_ext::bindings
