#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <string>
#include <variant>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/bindings/generation_arguments.h"
#include "mistral_ext/core/check.h"
#include "mistral_ext/generation/beam_search.h"

namespace py = pybind11;

namespace mistral_ext::bindings {
namespace {

using generation::BeamSearchConfig;
using generation::BeamSearchOutput;
using generation::EarlyStopping;

EarlyStopping read_early_stopping(const std::variant<bool, std::string>& value) {
  if (const bool* at_once = std::get_if<bool>(&value)) {
    return *at_once ? EarlyStopping::kAtOnce : EarlyStopping::kUnlikely;
  }
  const auto& word = std::get<std::string>(value);
  MISTRAL_EXT_CHECK(word == "never",
                    "beam_search: early_stopping must be True, False or \"never\", got \"{}\"",
                    word);
  return EarlyStopping::kNever;
}

BeamSearchOutput beam_search(const std::shared_ptr<models::MistralForCausalLM>& model,
                             const std::optional<at::Tensor>& input_ids,
                             const std::optional<at::Tensor>& inputs_embeds,
                             const std::optional<at::Tensor>& attention_mask,
                             const std::optional<at::Tensor>& position_ids,
                             const std::shared_ptr<cache::KVCache>& cache,
                             const std::optional<at::Generator>& generator,
                             const py::object& on_step,
                             const py::object& on_overlength,
                             const generation::GenerationConfig& config,
                             const BeamSearchConfig& beams) {
  const auto inputs = make_inputs(input_ids, inputs_embeds, attention_mask, position_ids, cache);
  const auto callbacks = make_callbacks(on_step, on_overlength);
  return generation::beam_search(*model, inputs, config, beams, callbacks, generator);
}

}  // namespace

void bind_beam_search(py::module_& m) {
  const BeamSearchConfig defaults;
  py::class_<BeamSearchConfig>(m, "BeamSearchConfig", "What beam search adds. Read-only.")
      .def(py::init([](int64_t num_beams,
                       int64_t num_return_sequences,
                       double length_penalty,
                       const std::variant<bool, std::string>& early_stopping) {
             return BeamSearchConfig{.num_beams = num_beams,
                                     .num_return_sequences = num_return_sequences,
                                     .length_penalty = length_penalty,
                                     .early_stopping = read_early_stopping(early_stopping)};
           }),
           py::kw_only(),
           py::arg("num_beams") = defaults.num_beams,
           py::arg("num_return_sequences") = defaults.num_return_sequences,
           py::arg("length_penalty") = defaults.length_penalty,
           py::arg("early_stopping") = false,
           "A score is a sum of log-probabilities over the number of new tokens to the power of\n"
           "length_penalty. early_stopping: True, False or \"never\", as in Hugging Face.");

  py::class_<BeamSearchOutput>(
      m, "BeamSearchOutput", "Of each prompt the num_return_sequences best, best first.")
      .def_readonly("sequences",
                    &BeamSearchOutput::sequences,
                    "int64 [batch * num_return_sequences, prompt + longest]; behind a shorter\n"
                    "one's end pad_token_id, or -1 without one.")
      .def_readonly("sequences_scores",
                    &BeamSearchOutput::sequences_scores,
                    "fp32 [batch * num_return_sequences]")
      .def_readonly("beam_indices",
                    &BeamSearchOutput::beam_indices,
                    "int32 [batch * num_return_sequences, longest]: the row of scores in which\n"
                    "each token was picked; -1 behind the end.")
      .def_readonly("steps", &BeamSearchOutput::steps)
      .def_readonly("scores",
                    &BeamSearchOutput::scores,
                    "One fp32 [batch * num_beams, vocab_size] a step, processed; empty unless\n"
                    "asked for.")
      .def_readonly("logits",
                    &BeamSearchOutput::logits,
                    "One fp32 [batch * num_beams, vocab_size] a step, the model's; empty unless\n"
                    "asked for.");

  m.def("beam_search",
        torch::wrap_pybind_function_no_gil(&beam_search),
        py::arg("model"),
        py::kw_only(),
        py::arg("input_ids") = py::none(),
        py::arg("inputs_embeds") = py::none(),
        py::arg("attention_mask") = py::none(),
        py::arg("position_ids") = py::none(),
        py::arg("cache") = py::none(),
        py::arg("generator") = py::none(),
        py::arg("on_step") = py::none(),
        py::arg("on_overlength") = py::none(),
        py::arg("config"),
        py::arg("beams"),
        "Beam search, with config.do_sample beam sampling, in C++, with the GIL released.\n\n"
        "The arguments are generate's, with a row a prompt, but:\n\n"
        "  cache    where it holds tokens, it has a row a prompt or a row a beam; a row a beam\n"
        "           afterwards\n"
        "  on_step  called as on_step(tokens, sequences) with the continuations that a step looks\n"
        "           at, int64 [n] and [n, length], n = batch * max(2, ends + 1) * num_beams; "
        "returns\n"
        "           None or bool [n], those that end with this token\n\n"
        "Ctrl-C raises KeyboardInterrupt between two passes of the model.");
}

}  // namespace mistral_ext::bindings
