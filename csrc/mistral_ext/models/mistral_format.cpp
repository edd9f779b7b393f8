#include "mistral_ext/models/mistral_format.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

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

}  // namespace

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
