#include "mistral_ext/models/mistral_format.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <array>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"

namespace mistral_ext::models {
namespace {

using Names = std::pair<std::string_view, std::string_view>;

constexpr std::array<Names, 3> kTopNames = {{
    {"model.embed_tokens.weight", "tok_embeddings.weight"},
    {"model.norm.weight", "norm.weight"},
    {"lm_head.weight", "output.weight"},
}};
constexpr std::array<Names, 9> kLayerNames = {{
    {"input_layernorm.weight", "attention_norm.weight"},
    {"self_attn.q_proj.weight", "attention.wq.weight"},
    {"self_attn.k_proj.weight", "attention.wk.weight"},
    {"self_attn.v_proj.weight", "attention.wv.weight"},
    {"self_attn.o_proj.weight", "attention.wo.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "feed_forward.w1.weight"},
    {"mlp.down_proj.weight", "feed_forward.w2.weight"},
    {"mlp.up_proj.weight", "feed_forward.w3.weight"},
}};
constexpr std::string_view kLayers = "model.layers.";

// Each changes the model, and is none of what is read here.
constexpr std::array<const char*, 6> kRefused = {
    "moe", "vision_encoder", "quantization", "yarn", "llama_4_scaling", "lora"};

// `sliding_window` is null, a number, or a list of both that repeats over the layers.
void read_window(const ConfigMap& params, int64_t layers, ConfigMap& config) {
  const auto found = params.find("sliding_window");
  const auto* list =
      found == params.end() ? nullptr : std::get_if<ConfigList>(&found->second.value);
  config["sliding_window"] = found == params.end() ? ConfigValue{nullptr} : found->second;
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
  config["model_type"] = {"ministral"};
  config["layer_types"] = {std::move(types)};
  config["sliding_window"] = std::move(window);
}

}  // namespace

MistralConfig config_of_params(const ConfigMap& params) {
  const ConfigReader reader(params, "config");
  for (const char* name : kRefused) {
    const auto found = params.find(name);
    MISTRAL_EXT_CHECK(found == params.end() || found->second.is_null(),
                      "config: {} must be absent from params.json, got it (a folder with a "
                      "config.json may have it)",
                      name);
  }
  ConfigMap config;
  const auto integer = [&](const char* name, const char* from) {
    const auto value = reader.integer(from);
    MISTRAL_EXT_CHECK(value.has_value(), "config: {} must be given in params.json, got none", from);
    config[name] = {*value};
    return *value;
  };
  const auto number = [&](const char* name, const char* from) {
    const auto value = reader.number(from);
    MISTRAL_EXT_CHECK(value.has_value(), "config: {} must be given in params.json, got none", from);
    config[name] = {*value};
  };
  integer("hidden_size", "dim");
  integer("intermediate_size", "hidden_dim");
  integer("vocab_size", "vocab_size");
  integer("num_attention_heads", "n_heads");
  integer("num_key_value_heads", "n_kv_heads");
  number("rms_norm_eps", "norm_eps");
  number("rope_theta", "rope_theta");
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

std::string mistral_name(const std::string& name) {
  for (const auto& [ours, theirs] : kTopNames) {
    if (name == ours) return std::string(theirs);
  }
  if (!name.starts_with(kLayers)) return "";
  const auto dot = name.find('.', kLayers.size());
  if (dot == std::string::npos) return "";
  for (const auto& [ours, theirs] : kLayerNames) {
    if (name.substr(dot + 1) == ours) {
      return fmt::format("layers.{}.{}", name.substr(kLayers.size(), dot - kLayers.size()), theirs);
    }
  }
  return "";
}

bool is_interleaved(const std::string& name) {
  return name.ends_with(".q_proj.weight") || name.ends_with(".k_proj.weight");
}

void half_split_rows_(at::Tensor& weight, int64_t head_dim) {
  const auto rows = at::arange(head_dim, weight.options().dtype(at::kLong))
                        .view({head_dim / 2, 2})
                        .transpose(0, 1)
                        .reshape(-1);
  // Row by row: a copy of the transposed view goes element by element. And head by head, in one
  // piece of memory: glibc would keep a hole for each tensor's worth of it.
  auto turned = at::empty({head_dim, weight.size(1)}, weight.options());
  for (const auto& head : weight.split(head_dim)) {
    at::index_select_out(turned, head, 0, rows);
    head.copy_(turned);
  }
}

}  // namespace mistral_ext::models
