#include "mistral_ext/programs/costs.h"

#include <algorithm>

#include "mistral_ext/models/load.h"

namespace mistral_ext::programs {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

// Keys that one of the last queries sees.
int64_t visible(int64_t tokens, int64_t window) {
  return window == 0 ? tokens : std::min(tokens, window);
}

// Pairs of a query and a key that it sees.
double visible_pairs(int64_t tokens, int64_t window) {
  const auto whole = static_cast<double>(visible(tokens, window));  // queries 1 ... whole see all
  return whole * (whole + 1) / 2 + (static_cast<double>(tokens) - whole) * whole;
}

}  // namespace

int64_t weight_bytes(const models::MistralForCausalLM& model) {
  const auto state = models::state_dict(model);
  int64_t bytes = 0;
  for (const auto& [name, weight] : state) {
    if (name != kEmbedding || !state.contains(kHead)) {
      bytes += static_cast<int64_t>(weight.nbytes());
    }
  }
  return bytes;
}

int64_t cache_bytes(const models::MistralForCausalLM& model, int64_t batch, int64_t past) {
  const auto& config = model.config();
  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype())) * 2 *
                     config.num_key_value_heads * config.head_dim;
  int64_t bytes = 0;
  for (const int64_t window : config.layer_windows) bytes += batch * visible(past, window) * width;
  return bytes;
}

double prompt_operations(const models::MistralForCausalLM& model, int64_t batch, int64_t tokens) {
  const auto& config = model.config();
  double operations = 0;
  for (const auto& [name, weight] : models::state_dict(model)) {
    if (weight.dim() != 2 || name == kHead || name == kEmbedding) continue;
    operations += 2.0 * static_cast<double>(weight.numel()) * static_cast<double>(tokens);
  }
  operations += 2.0 * static_cast<double>(config.vocab_size * config.hidden_size);
  const auto width = static_cast<double>(config.num_attention_heads * config.head_dim);
  for (const int64_t window : config.layer_windows) {
    operations += 4.0 * width * visible_pairs(tokens, window);
  }
  return operations * static_cast<double>(batch);
}

}  // namespace mistral_ext::programs
