#pragma once

#include <map>
#include <string>

#include "mistral_ext/io/state_dict.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

// None of the functions here that change a model may run while another thread uses it.

// Puts the tensors of `state` into the model's parameters, sharing their storage. With tied
// embeddings `lm_head.weight` may be absent: the head then is the embedding. Throws ValueError,
// with the model unchanged, where a parameter is missing, unknown, of another shape, not floating,
// or where devices differ.
void load_parameters(MistralForCausalLM& model, const io::StateDict& state);

// Replaces one parameter by name, sharing the tensor. Throws ValueError for an unknown name or a
// wrong shape.
void set_parameter(MistralForCausalLM& model, const std::string& name, const at::Tensor& tensor);

// Every module that holds a weight, by the name of its parameter.
std::map<std::string, layers::WeightedModule*> weighted_modules(const MistralForCausalLM& model);

// The model's parameters by name, sharing their storage; a tied head is left out.
io::StateDict state_dict(const MistralForCausalLM& model);

}  // namespace mistral_ext::models
