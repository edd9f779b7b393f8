#include "mistral_ext/layers/rotary_embedding.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/log.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "mistral_ext/layers/rope_init.h"

namespace mistral_ext::layers {
namespace {

constexpr int64_t kFirstRows = 256;
// Positions beyond this are not put into the table: 2^20 rows of head_dim 128 are half a gigabyte.
constexpr int64_t kMostRows = INT64_C(1) << 20;

at::TensorOptions int64_on(const at::Device& device) {
  return at::TensorOptions().dtype(at::kLong).device(device);
}

}  // namespace

// `dynamic` follows the longest sequence seen since the last one that fitted the pretraining
// length, as the reference does; every other type has one set of frequencies.
void RotaryEmbedding::follow_length(int64_t length, const at::Device& device) {
  const int64_t original = config_.max_position_embeddings;
  int64_t wanted = original;
  if (config_.rope.rope_type == "dynamic") {
    wanted = length < original ? original : std::max({length, frequencies_length_, original});
  }
  if (inv_freq_.defined() && inv_freq_.device() == device && wanted == frequencies_length_) return;
  // What is kept must be usable by a later pass that records gradients.
  const c10::InferenceMode ordinary(false);
  auto frequencies = rope_frequencies(config_, wanted, device);
  inv_freq_ = std::move(frequencies.inv_freq);
  attention_factor_ = frequencies.attention_factor;
  frequencies_length_ = wanted;
  table_ = at::Tensor();
}

int64_t RotaryEmbedding::length() {
  const std::scoped_lock lock(mutex_);
  return std::max(frequencies_length_, config_.max_position_embeddings);
}

void RotaryEmbedding::set_length(int64_t length) {
  const std::scoped_lock lock(mutex_);
  if (std::max(length, config_.max_position_embeddings) ==
      std::max(frequencies_length_, config_.max_position_embeddings)) {
    return;
  }
  frequencies_length_ = length;
  inv_freq_ = at::Tensor();
}

// positions: any shape [...] -> [..., head_dim]
at::Tensor RotaryEmbedding::angles(const at::Tensor& positions) const {
  const auto phase = positions.to(at::kFloat).unsqueeze(-1).mul(inv_freq_);
  return at::cat({phase.cos(), phase.sin()}, -1).mul_(attention_factor_);
}

void RotaryEmbedding::ensure_rows(int64_t rows, const at::Device& device) {
  if (table_.defined() && table_.size(0) >= rows) return;
  int64_t target = table_.defined() ? 2 * table_.size(0) : kFirstRows;
  while (target < rows) target *= 2;
  const c10::InferenceMode ordinary(false);
  table_ = angles(at::arange(target, int64_on(device)));
}

// 1 + beta log(1 + floor(position / original length)) (Llama 4's temperature, in Ministral 3)
std::optional<at::Tensor> RotaryEmbedding::query_scale(const at::Tensor& positions) const {
  if (config_.model_type != "ministral3" || !config_.rope.llama_4_scaling_beta) return std::nullopt;
  const int64_t original =
      config_.rope.original_max_position_embeddings.value_or(config_.max_position_embeddings);
  return positions.div(original)
      .floor_()
      .add_(1)
      .log_()
      .mul_(*config_.rope.llama_4_scaling_beta)
      .add_(1);
}

RotaryAngles RotaryEmbedding::consecutive(int64_t first, int64_t count, const at::Device& device) {
  const std::scoped_lock lock(mutex_);
  follow_length(first + count, device);
  const auto positions = at::arange(first, first + count, int64_on(device)).unsqueeze(0);
  if (first + count > kMostRows) {
    return {at::arange(count, int64_on(device)).unsqueeze(0),
            angles(positions.squeeze(0)),
            query_scale(positions)};
  }
  ensure_rows(first + count, device);
  return {positions, table_, query_scale(positions)};
}

RotaryAngles RotaryEmbedding::at(const at::Tensor& positions) {
  const std::scoped_lock lock(mutex_);
  const auto device = positions.device();
  const bool dynamic = config_.rope.rope_type == "dynamic";
  int64_t longest = config_.max_position_embeddings;
  bool in_table = false;
  if ((device.is_cpu() || dynamic) && positions.numel() > 0) {
    const auto [low, high] = at::aminmax(positions);
    longest = high.item<int64_t>() + 1;
    in_table = low.item<int64_t>() >= 0 && longest <= kMostRows;
  }
  follow_length(longest, device);
  auto scale = query_scale(positions);
  if (in_table) {
    ensure_rows(longest, device);
    return {positions, table_, std::move(scale)};
  }
  return {at::arange(positions.numel(), int64_on(device)).view_as(positions),
          angles(positions.reshape({-1})),
          std::move(scale)};
}

}  // namespace mistral_ext::layers
