// params.json: the configuration in the words of Mistral's own checkpoints.
#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/models/mistral_format.h"

namespace mistral_ext::models {
namespace {

// What is read, and what says nothing of the model. Whatever else is there may change what it
// computes.
constexpr std::array<std::string_view, 27> kKnown = {"dim",
                                                     "n_layers",
                                                     "head_dim",
                                                     "hidden_dim",
                                                     "n_heads",
                                                     "n_kv_heads",
                                                     "norm_eps",
                                                     "vocab_size",
                                                     "rope_theta",
                                                     "yarn",
                                                     "llama_4_scaling",
                                                     "tied_embeddings",
                                                     "sliding_window",
                                                     "_sliding_window",
                                                     "max_seq_len",
                                                     "max_position_embeddings",
                                                     "causal",
                                                     "use_biases",
                                                     "activation",
                                                     "model_type",
                                                     "pos_embed",
                                                     "ffn_type",
                                                     "norm_type",
                                                     "dtype",
                                                     "torch_dtype",
                                                     "max_batch_size",
                                                     "use_cache"};
constexpr std::array<std::string_view, 5> kYarn = {
    "factor", "original_max_position_embeddings", "beta", "alpha", "apply_scale"};
constexpr std::array<std::string_view, 2> kScaling = {"original_max_position_embeddings", "beta"};

// null and false switch off what a name stands for.
bool is_off(const ConfigValue& value) {
  const auto* on = std::get_if<bool>(&value.value);
  return value.is_null() || (on != nullptr && !*on);
}

void refuse_others(const ConfigMap& fields, const auto& known, const char* where) {
  for (const auto& [name, value] : fields) {
    MISTRAL_EXT_CHECK(std::ranges::find(known, name) != known.end() || is_off(value),
                      "config: {} must be absent from {}, got it: what it makes of the model is "
                      "not known here (a folder with a config.json may have it)",
                      name,
                      where);
  }
}

void check_usual(const ConfigReader& params) {
  const auto boolean = [&](const char* name, bool usual) {
    MISTRAL_EXT_CHECK(params.boolean(name).value_or(usual) == usual,
                      "config: {} must be {} in params.json, got {}",
                      name,
                      usual,
                      !usual);
  };
  boolean("causal", true);
  boolean("use_biases", false);
  const auto word = [&](const char* name, const char* usual) {
    const auto given = params.string(name).value_or(usual);
    MISTRAL_EXT_CHECK(
        given == usual, "config: {} must be {} in params.json, got {}", name, usual, given);
  };
  word("activation", "silu");
  word("model_type", "transformer");
  word("pos_embed", "rope");
  word("ffn_type", "swiglu");
  word("norm_type", "rms_norm");
}

template <typename T>
T required(const std::optional<T>& value, const char* where, const char* name) {
  MISTRAL_EXT_CHECK(value, "config: {}: {} must be given in params.json, got none", where, name);
  return *value;
}

// As transformers' conversion of these checkpoints writes them. A block that is empty is none.
ConfigMap read_rope(const ConfigReader& params) {
  constexpr const char* kLength = "original_max_position_embeddings";
  const auto theta = params.number("rope_theta");
  MISTRAL_EXT_CHECK(theta.has_value(), "config: rope_theta must be given in params.json, got none");
  ConfigMap rope = {{"rope_type", {"default"}}, {"rope_theta", {*theta}}};
  std::optional<int64_t> length;
  const auto* yarn = params.map("yarn");
  if (yarn != nullptr && !yarn->empty()) {
    refuse_others(*yarn, kYarn, "yarn in params.json");
    const ConfigReader reader(*yarn, "config: yarn");
    length = required(reader.integer(kLength), "yarn", kLength);
    rope["rope_type"] = {"yarn"};
    rope["factor"] = {required(reader.number("factor"), "yarn", "factor")};
    if (const auto beta = reader.number("beta")) rope["beta_fast"] = {*beta};
    if (const auto alpha = reader.number("alpha")) rope["beta_slow"] = {*alpha};
    // Whether the angles' cosines and sines are scaled by what the factor says. Readers of this
    // format disagree on what it means where it is absent.
    if (!required(reader.boolean("apply_scale"), "yarn", "apply_scale")) {
      rope["mscale"] = rope["mscale_all_dim"] = {1.0};
    }
  }
  const auto* scaling = params.map("llama_4_scaling");
  if (scaling != nullptr && !scaling->empty()) {
    refuse_others(*scaling, kScaling, "llama_4_scaling in params.json");
    const ConfigReader reader(*scaling, "config: llama_4_scaling");
    rope["llama_4_scaling_beta"] = {required(reader.number("beta"), "llama_4_scaling", "beta")};
    const auto own = required(reader.integer(kLength), "llama_4_scaling", kLength);
    MISTRAL_EXT_CHECK(!length || *length == own,
                      "config: llama_4_scaling: {} must be that of yarn, {}, got {}",
                      kLength,
                      *length,
                      own);
    length = own;
  }
  if (length) rope[kLength] = {*length};
  return rope;
}

// Under `sliding_window`, or (Ministral 8B) `_sliding_window`.
const ConfigValue& find_window(const ConfigMap& params) {
  static const ConfigValue kNone;
  const auto find = [&](const char* name) -> const ConfigValue& {
    const auto found = params.find(name);
    return found == params.end() ? kNone : found->second;
  };
  const auto& window = find("sliding_window");
  const auto& other = find("_sliding_window");
  MISTRAL_EXT_CHECK(window.is_null() || other.is_null(),
                    "config: _sliding_window must be null beside sliding_window, got another");
  return window.is_null() ? other : window;
}

// It is null, a number (some files have it as a text), or a list of nulls and one number that
// repeats over the layers.
void read_window(const ConfigMap& params, int64_t layers, ConfigMap& config) {
  const auto& given = find_window(params);
  config["sliding_window"] = given;
  if (const auto* text = std::get_if<std::string>(&given.value)) {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
    if (error == std::errc() && end == text->data() + text->size()) {
      config["sliding_window"] = {number};
    }
  }
  const auto* list = std::get_if<ConfigList>(&given.value);
  if (list == nullptr) return;
  MISTRAL_EXT_CHECK(!list->empty() && layers > 0 && layers % std::ssize(*list) == 0,
                    "config: sliding_window must have a length that divides n_layers = {}, got {}",
                    layers,
                    list->size());
  ConfigList types;
  types.reserve(layers);
  ConfigValue window = {nullptr};
  for (int64_t i = 0; i < layers; ++i) {
    const auto& entry = (*list)[i % std::ssize(*list)];
    types.emplace_back().value = entry.is_null() ? "full_attention" : "sliding_attention";
    if (entry.is_null()) continue;
    MISTRAL_EXT_CHECK(
        std::holds_alternative<int64_t>(entry.value) &&
            (window.is_null() || window.value.index() == entry.value.index()) &&
            (window.is_null() || std::get<int64_t>(window.value) == std::get<int64_t>(entry.value)),
        "config: sliding_window must hold nulls and one number, got others");
    window = entry;
  }
  MISTRAL_EXT_CHECK(std::get<std::string>(config.at("model_type").value) == "mistral",
                    "config: sliding_window must be null or one number beside llama_4_scaling, "
                    "got a list");
  config["model_type"] = {"ministral"};
  config["layer_types"] = {std::move(types)};
  config["sliding_window"] = std::move(window);
}

}  // namespace

MistralConfig config_of_params(const ConfigMap& params) {
  const ConfigReader reader(params, "config");
  refuse_others(params, kKnown, "params.json");
  check_usual(reader);
  ConfigMap config;
  const auto integer = [&](const char* name, const char* from) {
    const auto value = reader.integer(from);
    MISTRAL_EXT_CHECK(value.has_value(), "config: {} must be given in params.json, got none", from);
    config[name] = {*value};
    return *value;
  };
  integer("hidden_size", "dim");
  integer("intermediate_size", "hidden_dim");
  integer("vocab_size", "vocab_size");
  integer("num_attention_heads", "n_heads");
  integer("num_key_value_heads", "n_kv_heads");
  const auto eps = reader.number("norm_eps");
  MISTRAL_EXT_CHECK(eps.has_value(), "config: norm_eps must be given in params.json, got none");
  config["rms_norm_eps"] = {*eps};
  auto rope = read_rope(reader);
  config["model_type"] = {rope.contains("llama_4_scaling_beta") ? "ministral3" : "mistral"};
  config["rope_parameters"] = {std::move(rope)};
  if (const auto head_dim = reader.integer("head_dim")) config["head_dim"] = {*head_dim};
  for (const char* name : {"max_seq_len", "max_position_embeddings"}) {
    if (const auto length = reader.integer(name)) config["max_position_embeddings"] = {*length};
  }
  config["tie_word_embeddings"] = {reader.boolean("tied_embeddings").value_or(false)};
  const int64_t layers = integer("num_hidden_layers", "n_layers");
  // from_map refuses other counts; no list is made for them before.
  if (layers > 0 && layers <= MistralConfig::kMostLayers) read_window(params, layers, config);
  return MistralConfig::from_map(config);
}

}  // namespace mistral_ext::models
