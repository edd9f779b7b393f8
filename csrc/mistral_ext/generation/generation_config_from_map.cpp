#include "mistral_ext/generation/generation_config_from_map.h"

#include <array>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/generation/read_sequence_bias.h"

namespace mistral_ext::generation {
namespace {

// Fields that change the tokens in ways that generate does not know, with the value that means off;
// for those without one, null does.
struct Refused {
  const char* name;
  std::optional<double> off;
};
constexpr std::array<Refused, 12> kRefused = {{{"num_beam_groups", 1.0},
                                               {"num_return_sequences", 1.0},
                                               {"guidance_scale", 1.0},
                                               {"encoder_repetition_penalty", 1.0},
                                               {"encoder_no_repeat_ngram_size", 0.0},
                                               {"penalty_alpha", 0.0},
                                               {"stop_strings", {}},
                                               {"max_time", {}},
                                               {"force_words_ids", {}},
                                               {"constraints", {}},
                                               {"dola_layers", {}},
                                               {"watermarking_config", {}}}};

void check_refused(const ConfigMap& map) {
  for (const auto& [name, off] : kRefused) {
    const auto found = map.find(name);
    if (found == map.end() || found->second.is_null()) continue;
    const bool is_off = off && ConfigReader(map, "generation_config").number(name) == off;
    MISTRAL_EXT_CHECK(is_off, "generation_config: {} must be off for generate, got it", name);
  }
}

// One id, or a list of them.
std::vector<int64_t> read_tokens(const ConfigMap& map, const char* name) {
  const auto found = map.find(name);
  if (found == map.end() || found->second.is_null()) return {};
  const auto* list = std::get_if<ConfigList>(&found->second.value);
  if (list == nullptr) return {to_token(found->second, name)};
  std::vector<int64_t> tokens;
  for (const auto& item : *list) tokens.push_back(to_token(item, name));
  return tokens;
}

std::vector<std::vector<int64_t>> read_sequences(const ConfigMap& map, const char* name) {
  const auto* list = ConfigReader(map, "generation_config").list(name);
  std::vector<std::vector<int64_t>> sequences;
  if (list == nullptr) return sequences;
  for (const auto& item : *list) sequences.push_back(to_tokens(item, name));
  return sequences;
}

std::optional<ExponentialDecay> read_decay(const ConfigReader& reader) {
  constexpr const char* kName = "exponential_decay_length_penalty";
  const auto* list = reader.list(kName);
  if (list == nullptr) return std::nullopt;
  const auto number = [&](size_t i) -> std::optional<double> {
    if (const auto* x = std::get_if<double>(&(*list)[i].value)) return *x;
    if (const auto* x = std::get_if<int64_t>(&(*list)[i].value)) return static_cast<double>(*x);
    return std::nullopt;
  };
  MISTRAL_EXT_CHECK(list->size() == 2 && std::holds_alternative<int64_t>((*list)[0].value) &&
                        number(1).has_value(),
                    "generation_config: {} must hold an integer and a number, got other values",
                    kName);
  return ExponentialDecay{std::get<int64_t>((*list)[0].value), *number(1)};
}

EarlyStopping read_early_stopping(const ConfigMap& map) {
  constexpr const char* kName = "early_stopping";
  const auto found = map.find(kName);
  const auto* word = found == map.end() ? nullptr : std::get_if<std::string>(&found->second.value);
  if (word != nullptr && *word == "never") return EarlyStopping::kNever;
  const bool at_once = ConfigReader(map, "generation_config").boolean(kName).value_or(false);
  return at_once ? EarlyStopping::kAtOnce : EarlyStopping::kUnlikely;
}

void read_beams(const ConfigMap& map, BeamSearchConfig* beams) {
  const ConfigReader reader(map, "generation_config");
  const auto num_beams = reader.integer("num_beams").value_or(1);
  MISTRAL_EXT_CHECK(beams != nullptr || num_beams == 1,
                    "generation_config: num_beams must be off for generate, got {}",
                    num_beams);
  if (beams == nullptr) return;
  beams->num_beams = num_beams;
  beams->length_penalty = reader.number("length_penalty").value_or(beams->length_penalty);
  beams->early_stopping = read_early_stopping(map);
  beams->validate();
}

}  // namespace

GenerationConfig generation_config_from_map(const ConfigMap& map, BeamSearchConfig* beams) {
  check_refused(map);
  read_beams(map, beams);
  const ConfigReader reader(map, "generation_config");
  GenerationConfig config;
  const auto integer = [&](const char* name, int64_t& field) {
    field = reader.integer(name).value_or(field);
  };
  const auto number = [&](const char* name, double& field) {
    field = reader.number(name).value_or(field);
  };
  const auto boolean = [&](const char* name, bool& field) {
    field = reader.boolean(name).value_or(field);
  };
  config.max_length = reader.integer("max_length");
  config.max_new_tokens = reader.integer("max_new_tokens");
  integer("min_length", config.min_length);
  integer("min_new_tokens", config.min_new_tokens);
  config.eos_token_ids = read_tokens(map, "eos_token_id");
  config.pad_token_id = reader.integer("pad_token_id");
  if (!config.pad_token_id && !config.eos_token_ids.empty()) {
    config.pad_token_id = config.eos_token_ids.front();
  }
  config.sequence_bias = read_sequence_bias(map);
  number("repetition_penalty", config.repetition_penalty);
  integer("no_repeat_ngram_size", config.no_repeat_ngram_size);
  config.bad_words_ids = read_sequences(map, "bad_words_ids");
  config.forced_bos_token_id = reader.integer("forced_bos_token_id");
  config.forced_eos_token_ids = read_tokens(map, "forced_eos_token_id");
  boolean("remove_invalid_values", config.remove_invalid_values);
  config.exponential_decay_length_penalty = read_decay(reader);
  config.suppress_tokens = read_tokens(map, "suppress_tokens");
  config.begin_suppress_tokens = read_tokens(map, "begin_suppress_tokens");
  boolean("renormalize_logits", config.renormalize_logits);
  boolean("do_sample", config.do_sample);
  number("temperature", config.temperature);
  config.top_h = reader.number("top_h");
  config.top_k = reader.integer("top_k").value_or(50);
  number("top_p", config.top_p);
  number("min_p", config.min_p);
  number("typical_p", config.typical_p);
  number("epsilon_cutoff", config.epsilon_cutoff);
  number("eta_cutoff", config.eta_cutoff);
  integer("prefill_chunk_size", config.prefill_chunk_size);
  return config;
}

}  // namespace mistral_ext::generation
