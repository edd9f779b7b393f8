#pragma once

#include <filesystem>
#include <functional>

#include "mistral_ext/io/state_dict.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

// What both ways of saving a model have in common.

// The fields of its config.json: the model's, those of `more` that are not among them, and those of
// its extra_config that are in neither.
ConfigMap config_to_save(const MistralForCausalLM& model, const ConfigMap& more);

// Its tensors by name, gathered on the first of its ranks. A head that is the embedding's tensor is
// left out where the configuration says that they are tied.
io::StateDict tensors_to_save(const MistralForCausalLM& model);

// Runs `write` on the first of the ranks over which the model's weights are spread, and has all of
// them throw where it throws.
void on_first_rank(const MistralForCausalLM& model, const std::function<void()>& write);

// Makes a folder where there is none. Throws ValueError naming it.
void make_folder(const std::filesystem::path& folder);

}  // namespace mistral_ext::models
