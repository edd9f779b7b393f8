#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::bindings {

// A C++ model whose weights are those of a live Hugging Face module. refresh() walks the Python
// modules before each call of the C++ model, so whatever was done to them since (moved, replaced,
// tied, resized, re-assigned) is seen; a weight is shared, never copied. The walk reads
// dictionaries alone, some 50 lookups a layer.
//
// A model that has been handed out keeps its weights: where the module holds other tensors than
// before, another C++ model is made, so that a pass or a generation that is under way (in another
// thread, or below the callback that calls us) ends as it began.
//
// It also finds what only Python can run: a module of another class than those named (PEFT,
// quantisation, parametrisation), a hook, a forward replaced on the instance, active dropout.
//
// The module is a causal language model, or, where module_types names no class for one, the
// backbone alone: the C++ model then has no weight for its head.
class SharedWeights {
 public:
  //   context: the ranks over which the module's weights are spread.
  SharedWeights(MistralConfig config,
                const pybind11::dict& module_types,
                parallel::Context context = {});

  // Why the module's own Python has to run, or ""; in the first case no weight is held any more.
  // Throws ValueError where a shape does not fit.
  std::string refresh(pybind11::handle module);

  // With the weights of the last refresh; null after one that found a reason not to share them.
  const std::shared_ptr<models::MistralForCausalLM>& model() const { return model_; }

 private:
  class Walk;

  MistralConfig config_;
  parallel::Context context_;
  pybind11::dict types_;
  bool has_head_;
  std::shared_ptr<models::MistralForCausalLM> model_;
  std::vector<layers::WeightedModule*> slots_;  // the model's, in the order of the walk
};

}  // namespace mistral_ext::bindings
