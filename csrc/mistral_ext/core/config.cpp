#include "mistral_ext/core/config.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"

namespace mistral_ext {
namespace {

constexpr std::array<std::string_view, 3> kModelTypes = {"mistral", "ministral", "ministral3"};
constexpr std::array<std::string_view, 5> kRopeTypes = {
    "default", "linear", "dynamic", "yarn", "llama3"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The length of pretraining. Where a type reads it, one at the top counts before the rope's own.
void read_original_length(const ConfigReader& config,
                          const ConfigReader& rope,
                          int64_t max_position_embeddings,
                          RopeParameters& p) {
  constexpr const char* kName = "original_max_position_embeddings";
  p.original_max_position_embeddings = rope.integer(kName);
  if (p.rope_type == "default") return;
  const auto top = config.integer(kName);
  const bool reads_it = p.rope_type == "yarn" || p.rope_type == "llama3";
  if (!p.original_max_position_embeddings || (reads_it && top)) {
    p.original_max_position_embeddings = top.value_or(max_position_embeddings);
  }
}

// The rope fields of either schema. In the older one `rope_theta` stands at the top and
// `rope_scaling` (null where nothing is scaled) holds the rest, its type under `type` or
// `rope_type`. Where both are given, Hugging Face takes the older one.
RopeParameters read_rope(const ConfigReader& config, int64_t max_position_embeddings) {
  static const ConfigMap kEmpty;
  const ConfigMap* map = config.map("rope_scaling");
  if (map == nullptr || map->empty()) map = config.map("rope_parameters");
  const ConfigReader rope(map == nullptr ? kEmpty : *map, "config: rope_parameters");

  RopeParameters p;
  p.rope_type = rope.string("rope_type").value_or(rope.string("type").value_or("default"));
  MISTRAL_EXT_CHECK(
      is_one_of(p.rope_type, kRopeTypes),
      "config: rope_type must be one of default, linear, dynamic, yarn, llama3, got {}",
      p.rope_type);
  const auto theta = rope.number("rope_theta");
  const auto top_level_theta = config.number("rope_theta");
  MISTRAL_EXT_CHECK(
      theta || top_level_theta,
      "config: rope_theta must be given (in rope_parameters or at the top level), got "
      "none");
  p.rope_theta = theta ? *theta : *top_level_theta;
  const auto partial = rope.number("partial_rotary_factor")
                           .value_or(config.number("partial_rotary_factor").value_or(1.0));
  MISTRAL_EXT_CHECK(partial == 1.0, "config: partial_rotary_factor must be 1, got {}", partial);
  p.factor = rope.number("factor");
  p.attention_factor = rope.number("attention_factor");
  p.mscale = rope.number("mscale");
  p.mscale_all_dim = rope.number("mscale_all_dim");
  // Zero counts as unset, as in the reference.
  if (const auto beta = rope.number("beta_fast"); beta.value_or(0.0) != 0.0) p.beta_fast = *beta;
  if (const auto beta = rope.number("beta_slow"); beta.value_or(0.0) != 0.0) p.beta_slow = *beta;
  p.truncate = rope.boolean("truncate").value_or(true);
  p.low_freq_factor = rope.number("low_freq_factor").value_or(0.0);
  p.high_freq_factor = rope.number("high_freq_factor").value_or(0.0);
  read_original_length(config, rope, max_position_embeddings, p);
  // Null, but not absent, means what the lengths say.
  if (p.rope_type == "yarn" && rope.has("factor") && !p.factor) {
    p.factor = static_cast<double>(max_position_embeddings) /
               static_cast<double>(*p.original_max_position_embeddings);
  }
  p.llama_4_scaling_beta = rope.number("llama_4_scaling_beta");
  return p;
}

std::vector<int64_t> read_windows(const ConfigReader& reader, const MistralConfig& config) {
  // Absent is not null: the class's default applies.
  const int64_t default_window = config.model_type == "ministral3" ? 0 : 4096;
  const int64_t window =
      reader.has("sliding_window") ? reader.integer("sliding_window").value_or(0) : default_window;
  MISTRAL_EXT_CHECK(
      window >= 0, "config: sliding_window must be null, 0 or positive, got {}", window);
  std::vector<int64_t> windows(config.num_hidden_layers, window);
  // Hugging Face's Mistral and Ministral 3 classes apply the window to every layer whatever
  // layer_types says; only its Ministral class reads them.
  const auto* types = config.model_type == "ministral" ? reader.list("layer_types") : nullptr;
  if (types == nullptr) return windows;
  MISTRAL_EXT_CHECK(std::ssize(*types) == config.num_hidden_layers,
                    "config: layer_types must have num_hidden_layers = {} entries, got {}",
                    config.num_hidden_layers,
                    types->size());
  for (size_t i = 0; i < types->size(); ++i) {
    const auto* name = std::get_if<std::string>(&(*types)[i].value);
    const bool slides = name != nullptr && *name == "sliding_attention";
    MISTRAL_EXT_CHECK(
        slides || (name != nullptr && *name == "full_attention"),
        "config: layer_types must hold full_attention or sliding_attention, got {} at {}",
        name != nullptr ? *name : "no string",
        i);
    MISTRAL_EXT_CHECK(!slides || window > 0,
                      "config: sliding_window must be positive where layer_types has "
                      "sliding_attention, got {}",
                      window);
    if (!slides) windows[i] = 0;
  }
  return windows;
}

void check_positive(const char* name, int64_t value) {
  MISTRAL_EXT_CHECK(value > 0, "config: {} must be positive, got {}", name, value);
}

// The elements of the largest weights. Their bytes, and those of several side by side, have to be
// numbers that fit int64; real ones are below 2^40.
void check_sizes(const MistralConfig& config) {
  constexpr int64_t kMost = int64_t{1} << 56;
  using Factor = std::pair<const char*, int64_t>;
  const auto check = [&](std::initializer_list<Factor> factors) {
    int64_t product = 1;
    bool fits = true;
    for (const auto& [name, value] : factors) {
      fits = fits && !__builtin_mul_overflow(product, value, &product) && product <= kMost;
    }
    if (fits) return;
    std::string names;
    std::string values;
    for (const auto& [name, value] : factors) {
      names += (names.empty() ? "" : " * ") + std::string(name);
      values += (values.empty() ? "" : " * ") + std::to_string(value);
    }
    MISTRAL_EXT_CHECK(false, "config: {} must be at most {}, got {}", names, kMost, values);
  };
  const Factor hidden = {"hidden_size", config.hidden_size};
  check({{"vocab_size", config.vocab_size}, hidden});
  check({{"intermediate_size", config.intermediate_size}, hidden});
  // There are no more key heads.
  check(
      {{"num_attention_heads", config.num_attention_heads}, {"head_dim", config.head_dim}, hidden});
}

void validate_rope(const RopeParameters& rope) {
  MISTRAL_EXT_CHECK(
      rope.rope_theta > 0.0, "config: rope_theta must be positive, got {}", rope.rope_theta);
  MISTRAL_EXT_CHECK(
      rope.original_max_position_embeddings.value_or(1) > 0,
      "config: rope_parameters: original_max_position_embeddings must be positive, got {}",
      rope.original_max_position_embeddings.value_or(1));
  if (rope.rope_type == "default") return;
  MISTRAL_EXT_CHECK(rope.factor.has_value() && *rope.factor > 0.0,
                    "config: rope_parameters: factor must be positive for rope_type {}, got {}",
                    rope.rope_type,
                    rope.factor ? std::to_string(*rope.factor) : "none");
  MISTRAL_EXT_CHECK(rope.beta_fast > 0.0 && rope.beta_slow > 0.0,
                    "config: rope_parameters: beta_fast and beta_slow must be positive, got {} and "
                    "{}",
                    rope.beta_fast,
                    rope.beta_slow);
  if (rope.rope_type != "llama3") return;
  MISTRAL_EXT_CHECK(rope.low_freq_factor > 0.0 && rope.high_freq_factor > rope.low_freq_factor,
                    "config: rope_parameters: high_freq_factor must be above low_freq_factor > 0, "
                    "got {} and {}",
                    rope.high_freq_factor,
                    rope.low_freq_factor);
}

}  // namespace

MistralConfig MistralConfig::from_map(const ConfigMap& map) {
  const ConfigReader reader(map, "config");
  MistralConfig config;
  config.model_type = reader.string("model_type").value_or(config.model_type);
  MISTRAL_EXT_CHECK(is_one_of(config.model_type, kModelTypes),
                    "config: model_type must be mistral, ministral or ministral3, got {}",
                    config.model_type);
  const auto integer = [&](const char* name, int64_t& field) {
    field = reader.integer(name).value_or(field);
  };
  integer("vocab_size", config.vocab_size);
  integer("hidden_size", config.hidden_size);
  integer("intermediate_size", config.intermediate_size);
  integer("num_hidden_layers", config.num_hidden_layers);
  integer("num_attention_heads", config.num_attention_heads);
  // Null means one key head a query head; absent means the class's default of 8.
  config.num_key_value_heads =
      reader.integer("num_key_value_heads")
          .value_or(reader.has("num_key_value_heads") ? config.num_attention_heads : 8);
  check_positive("num_attention_heads", config.num_attention_heads);
  check_positive("num_hidden_layers", config.num_hidden_layers);
  MISTRAL_EXT_CHECK(config.num_hidden_layers <= kMostLayers,
                    "config: num_hidden_layers must be at most {}, got {}",
                    kMostLayers,
                    config.num_hidden_layers);
  const int64_t derived_head_dim = config.model_type == "ministral3" && !reader.has("head_dim")
                                       ? 128
                                       : config.hidden_size / config.num_attention_heads;
  config.head_dim = reader.integer("head_dim").value_or(derived_head_dim);
  config.hidden_act = reader.string("hidden_act").value_or(config.hidden_act);
  config.max_position_embeddings =
      reader.integer("max_position_embeddings")
          .value_or(config.model_type == "ministral3" ? 262144 : config.max_position_embeddings);
  config.rms_norm_eps =
      reader.number("rms_norm_eps").value_or(config.model_type == "ministral3" ? 1e-5 : 1e-6);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings").value_or(false);
  config.pad_token_id = reader.integer("pad_token_id");
  config.attention_dropout = reader.number("attention_dropout").value_or(0.0);
  config.rope = read_rope(reader, config.max_position_embeddings);
  config.layer_windows = read_windows(reader, config);
  config.validate();
  return config;
}

void MistralConfig::validate() const {
  check_positive("vocab_size", vocab_size);
  check_positive("hidden_size", hidden_size);
  check_positive("intermediate_size", intermediate_size);
  check_positive("num_hidden_layers", num_hidden_layers);
  check_positive("num_attention_heads", num_attention_heads);
  check_positive("num_key_value_heads", num_key_value_heads);
  check_positive("head_dim", head_dim);
  check_positive("max_position_embeddings", max_position_embeddings);
  MISTRAL_EXT_CHECK(num_attention_heads % num_key_value_heads == 0,
                    "config: num_key_value_heads must divide num_attention_heads = {}, got {}",
                    num_attention_heads,
                    num_key_value_heads);
  MISTRAL_EXT_CHECK(head_dim % 2 == 0, "config: head_dim must be even, got {}", head_dim);
  MISTRAL_EXT_CHECK(
      rms_norm_eps >= 0.0, "config: rms_norm_eps must not be negative, got {}", rms_norm_eps);
  MISTRAL_EXT_CHECK(attention_dropout >= 0.0 && attention_dropout < 1.0,
                    "config: attention_dropout must be in [0, 1), got {}",
                    attention_dropout);
  MISTRAL_EXT_CHECK(!pad_token_id || (*pad_token_id >= -vocab_size && *pad_token_id < vocab_size),
                    "config: pad_token_id must be below vocab_size = {}, got {}",
                    vocab_size,
                    pad_token_id.value_or(0));
  MISTRAL_EXT_CHECK(std::ssize(layer_windows) == num_hidden_layers,
                    "config: layer_windows must have num_hidden_layers = {} entries, got {}",
                    num_hidden_layers,
                    layer_windows.size());
  check_sizes(*this);
  validate_rope(rope);
}

}  // namespace mistral_ext
