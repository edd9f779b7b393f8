#pragma once

#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <optional>

#include "mistral_ext/generation/callbacks.h"
#include "mistral_ext/generation/prompt.h"

namespace mistral_ext::bindings {

// What a generation takes from Python beside its settings.
generation::GenerateInputs make_inputs(const std::optional<at::Tensor>& input_ids,
                                       const std::optional<at::Tensor>& inputs_embeds,
                                       const std::optional<at::Tensor>& attention_mask,
                                       const std::optional<at::Tensor>& position_ids,
                                       const std::shared_ptr<cache::KVCache>& cache);

// For a loop that runs without the GIL: taken for each callback and, after each pass of the model,
// to let Ctrl-C in. The objects must outlive the result.
generation::Callbacks make_callbacks(const pybind11::object& on_step,
                                     const pybind11::object& on_overlength);

}  // namespace mistral_ext::bindings
