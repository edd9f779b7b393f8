#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/bindings/generation_arguments.h"
#include "mistral_ext/generation/generate.h"

namespace py = pybind11;

namespace mistral_ext::bindings {
namespace {

using generation::BiasedSequence;
using generation::ExponentialDecay;
using generation::GenerateOutput;
using generation::GenerationConfig;

GenerateOutput generate(const std::shared_ptr<models::MistralForCausalLM>& model,
                        const std::optional<at::Tensor>& input_ids,
                        const std::optional<at::Tensor>& inputs_embeds,
                        const std::optional<at::Tensor>& attention_mask,
                        const std::optional<at::Tensor>& position_ids,
                        const std::shared_ptr<cache::KVCache>& cache,
                        const std::optional<at::Generator>& generator,
                        const py::object& on_step,
                        const py::object& on_overlength,
                        const GenerationConfig& config) {
  const auto inputs = make_inputs(input_ids, inputs_embeds, attention_mask, position_ids, cache);
  const auto callbacks = make_callbacks(on_step, on_overlength);
  return generation::generate(*model, inputs, config, callbacks, generator);
}

}  // namespace

void bind_generation(py::module_& m) {
  const GenerationConfig defaults;
  py::class_<GenerationConfig>(m, "GenerationConfig", "How to generate. Read-only.")
      .def(
          py::init([](std::optional<int64_t> max_length,
                      std::optional<int64_t> max_new_tokens,
                      int64_t min_length,
                      int64_t min_new_tokens,
                      std::vector<int64_t> eos_token_ids,
                      std::optional<int64_t> pad_token_id,
                      const std::vector<std::pair<std::vector<int64_t>, double>>& sequence_bias,
                      double repetition_penalty,
                      int64_t no_repeat_ngram_size,
                      std::vector<std::vector<int64_t>> bad_words_ids,
                      std::optional<int64_t> forced_bos_token_id,
                      std::vector<int64_t> forced_eos_token_ids,
                      bool remove_invalid_values,
                      std::optional<std::pair<int64_t, double>> exponential_decay_length_penalty,
                      std::vector<int64_t> suppress_tokens,
                      std::vector<int64_t> begin_suppress_tokens,
                      std::optional<int64_t> begin_index,
                      bool renormalize_logits,
                      bool do_sample,
                      double temperature,
                      std::optional<double> top_h,
                      int64_t top_k,
                      double top_p,
                      double min_p,
                      double typical_p,
                      double epsilon_cutoff,
                      double eta_cutoff,
                      std::optional<uint64_t> seed,
                      int64_t prefill_chunk_size,
                      bool output_scores,
                      bool output_logits) {
            std::vector<BiasedSequence> biased;
            biased.reserve(sequence_bias.size());
            for (const auto& [token_ids, bias] : sequence_bias) biased.push_back({token_ids, bias});
            std::optional<ExponentialDecay> decay;
            if (exponential_decay_length_penalty) {
              decay = {exponential_decay_length_penalty->first,
                       exponential_decay_length_penalty->second};
            }
            return GenerationConfig{.max_length = max_length,
                                    .max_new_tokens = max_new_tokens,
                                    .min_length = min_length,
                                    .min_new_tokens = min_new_tokens,
                                    .eos_token_ids = std::move(eos_token_ids),
                                    .pad_token_id = pad_token_id,
                                    .sequence_bias = std::move(biased),
                                    .repetition_penalty = repetition_penalty,
                                    .no_repeat_ngram_size = no_repeat_ngram_size,
                                    .bad_words_ids = std::move(bad_words_ids),
                                    .forced_bos_token_id = forced_bos_token_id,
                                    .forced_eos_token_ids = std::move(forced_eos_token_ids),
                                    .remove_invalid_values = remove_invalid_values,
                                    .exponential_decay_length_penalty = decay,
                                    .suppress_tokens = std::move(suppress_tokens),
                                    .begin_suppress_tokens = std::move(begin_suppress_tokens),
                                    .begin_index = begin_index,
                                    .renormalize_logits = renormalize_logits,
                                    .do_sample = do_sample,
                                    .temperature = temperature,
                                    .top_h = top_h,
                                    .top_k = top_k,
                                    .top_p = top_p,
                                    .min_p = min_p,
                                    .typical_p = typical_p,
                                    .epsilon_cutoff = epsilon_cutoff,
                                    .eta_cutoff = eta_cutoff,
                                    .seed = seed,
                                    .prefill_chunk_size = prefill_chunk_size,
                                    .output_scores = output_scores,
                                    .output_logits = output_logits};
          }),
          py::kw_only(),
          py::arg("max_length") = defaults.max_length,
          py::arg("max_new_tokens") = defaults.max_new_tokens,
          py::arg("min_length") = defaults.min_length,
          py::arg("min_new_tokens") = defaults.min_new_tokens,
          py::arg("eos_token_ids") = defaults.eos_token_ids,
          py::arg("pad_token_id") = defaults.pad_token_id,
          py::arg("sequence_bias") = py::tuple(),
          py::arg("repetition_penalty") = defaults.repetition_penalty,
          py::arg("no_repeat_ngram_size") = defaults.no_repeat_ngram_size,
          py::arg("bad_words_ids") = defaults.bad_words_ids,
          py::arg("forced_bos_token_id") = defaults.forced_bos_token_id,
          py::arg("forced_eos_token_ids") = defaults.forced_eos_token_ids,
          py::arg("remove_invalid_values") = defaults.remove_invalid_values,
          py::arg("exponential_decay_length_penalty") = py::none(),
          py::arg("suppress_tokens") = defaults.suppress_tokens,
          py::arg("begin_suppress_tokens") = defaults.begin_suppress_tokens,
          py::arg("begin_index") = defaults.begin_index,
          py::arg("renormalize_logits") = defaults.renormalize_logits,
          py::arg("do_sample") = defaults.do_sample,
          py::arg("temperature") = defaults.temperature,
          py::arg("top_h") = defaults.top_h,
          py::arg("top_k") = defaults.top_k,
          py::arg("top_p") = defaults.top_p,
          py::arg("min_p") = defaults.min_p,
          py::arg("typical_p") = defaults.typical_p,
          py::arg("epsilon_cutoff") = defaults.epsilon_cutoff,
          py::arg("eta_cutoff") = defaults.eta_cutoff,
          py::arg("seed") = defaults.seed,
          py::arg("prefill_chunk_size") = defaults.prefill_chunk_size,
          py::arg("output_scores") = defaults.output_scores,
          py::arg("output_logits") = defaults.output_logits,
          "Lengths count the columns of the returned sequences, prompt included; max_new_tokens\n"
          "wins over max_length and one of them must be given. top_k=0, top_p=1, min_p=0,\n"
          "typical_p=1 and the cutoffs 0 keep every token; prefill_chunk_size=0 feeds the prompt "
          "in\n"
          "one pass. The processors are applied in the order of these arguments, but\n"
          "renormalize_logits last.\n\n"
          "  sequence_bias  of (token_ids, bias): added to the last one's score behind the others\n"
          "  bad_words_ids  sequences that do not occur\n"
          "  exponential_decay_length_penalty  (start, factor): from start new tokens on the ends\n"
          "                 gain their scores' magnitudes times factor^n - 1, n tokens later\n"
          "  begin_suppress_tokens  suppressed where the sequences have begin_index columns; "
          "None:\n"
          "                 for the first new token");

  py::class_<GenerateOutput>(m, "GenerateOutput", "What generate returns.")
      .def_readonly("sequences", &GenerateOutput::sequences, "int64 [batch, prompt + steps]")
      .def_readonly("steps", &GenerateOutput::steps)
      .def_readonly("stopped",
                    &GenerateOutput::stopped,
                    "bool [batch], on the CPU: ended by an end-of-sequence token or by on_step.")
      .def_readonly("scores",
                    &GenerateOutput::scores,
                    "One fp32 [batch, vocab_size] a step, processed; empty unless asked for.")
      .def_readonly("logits",
                    &GenerateOutput::logits,
                    "One fp32 [batch, vocab_size] a step, the model's; empty unless asked for.");

  m.def(
      "generate",
      torch::wrap_pybind_function_no_gil(&generate),
      py::arg("model").none(false),
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
      "Generates token by token in C++, with the GIL released.\n\n"
      "  input_ids       int64 [batch, prompt]; where the cache holds tokens, all tokens from the\n"
      "                  first on, or the new ones alone beside an attention_mask that covers all\n"
      "  inputs_embeds   [batch, tokens, hidden_size], fed in place of the ids in the first pass\n"
      "  attention_mask  [batch, cached and new tokens]\n"
      "  position_ids    int64 [batch or 1, n], the last of them those of the tokens fed\n"
      "  cache           KVCache, continued and appended to\n"
      "  generator       torch.Generator, drawn from where config has no seed\n"
      "  on_step         called as on_step(tokens, sequences) after each step with int64 [batch]\n"
      "                  and [batch, length]; returns None or bool [batch], the rows to stop\n"
      "  on_overlength   called once as on_overlength(length) when the sequences have outgrown "
      "the\n"
      "                  model's max_position_embeddings; None: a UserWarning\n\n"
      "Ctrl-C raises KeyboardInterrupt between two passes of the model.");
}

}  // namespace mistral_ext::bindings
