// The Python module mistral_ext._C. What it binds is split by topic: bind_<topic>.cpp.

#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/kernels/cpu/level.h"

PYBIND11_MODULE(_C, m) {
  namespace cpu = mistral_ext::kernels::cpu;
  m.doc() = "The C++ side of mistral_ext.";
  m.attr("version") = MISTRAL_EXT_VERSION;
  m.attr("torch_version") = TORCH_VERSION;
  m.def(
      "cpu_level",
      [] { return cpu::level_name(cpu::active_level()); },
      "The instruction-set level of the CPU kernels in use: the machine's best, or what\n"
      "MISTRAL_EXT_CPU_LEVEL forces. RuntimeError where the machine lacks the forced level.");
  mistral_ext::bindings::bind_config(m);
  mistral_ext::bindings::bind_parallel_context(m);
  mistral_ext::bindings::bind_cache(m);
  mistral_ext::bindings::bind_model(m);
  mistral_ext::bindings::bind_generation(m);
  mistral_ext::bindings::bind_beam_search(m);
  mistral_ext::bindings::bind_checkpoint(m);
  mistral_ext::bindings::bind_tokenizer(m);
  mistral_ext::bindings::bind_parallel(m);
}
