#pragma once

#include <pybind11/pybind11.h>

namespace mistral_ext::bindings {

void bind_beam_search(pybind11::module_& m);
void bind_config(pybind11::module_& m);
void bind_checkpoint(pybind11::module_& m);
void bind_cache(pybind11::module_& m);
void bind_generation(pybind11::module_& m);
void bind_model(pybind11::module_& m);
void bind_parallel(pybind11::module_& m);
void bind_parallel_context(pybind11::module_& m);
void bind_tokenizer(pybind11::module_& m);

}  // namespace mistral_ext::bindings
