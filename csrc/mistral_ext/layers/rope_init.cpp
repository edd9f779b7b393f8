#include "mistral_ext/layers/rope_init.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mistral_ext::layers {
namespace {

at::TensorOptions fp32(const at::Device& device) {
  return at::TensorOptions().dtype(at::kFloat).device(device);
}

// base^(2i / dim), i = 0 .. dim/2 - 1
at::Tensor powers(double base, int64_t dim, const at::Device& device) {
  return at::pow(at::Scalar(base), at::arange(0, dim, 2, fp32(device)).div(dim));
}

double dynamic_base(const MistralConfig& config, int64_t seq_len) {
  const double longest = static_cast<double>(config.max_position_embeddings);
  const double length = static_cast<double>(std::max(seq_len, config.max_position_embeddings));
  const double factor = *config.rope.factor;
  const double dim = static_cast<double>(config.head_dim);
  return config.rope.rope_theta *
         std::pow((factor * length / longest) - (factor - 1), dim / (dim - 2));
}

double yarn_attention_factor(const RopeParameters& rope) {
  if (rope.attention_factor) return *rope.attention_factor;
  const auto mscale = [&](double weight) {
    return *rope.factor <= 1 ? 1.0 : 0.1 * weight * std::log(*rope.factor) + 1.0;
  };
  const double all_dim = rope.mscale_all_dim.value_or(0.0);
  if (rope.mscale.value_or(0.0) != 0.0 && all_dim != 0.0) {
    return mscale(*rope.mscale) / mscale(all_dim);
  }
  return mscale(1.0);
}

at::Tensor yarn_inv_freq(const MistralConfig& config, const at::Device& device) {
  const RopeParameters& rope = config.rope;
  const double dim = static_cast<double>(config.head_dim);
  // The dimension whose angle turns `rotations` times over the pretraining length.
  const auto dimension_of = [&](double rotations) {
    const double length = static_cast<double>(*rope.original_max_position_embeddings);
    return dim * std::log(length / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.rope_theta));
  };
  double low = dimension_of(rope.beta_fast);
  double high = dimension_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;

  const auto frequencies = powers(rope.rope_theta, config.head_dim, device);
  const auto extrapolated = frequencies.reciprocal();
  const auto interpolated = frequencies.mul(*rope.factor).reciprocal();
  const auto ramp =
      at::arange(config.head_dim / 2, fp32(device)).sub(low).div(high - low).clamp(0, 1);
  const auto keep = ramp.neg().add(1);  // 1 - ramp
  return interpolated.mul(keep.neg().add(1)).add(extrapolated.mul(keep));
}

at::Tensor llama3_inv_freq(const MistralConfig& config, const at::Device& device) {
  const RopeParameters& rope = config.rope;
  const double length = static_cast<double>(*rope.original_max_position_embeddings);
  const double low_wavelength = length / rope.low_freq_factor;
  const double high_wavelength = length / rope.high_freq_factor;
  const auto inv_freq = powers(rope.rope_theta, config.head_dim, device).reciprocal();
  const auto wavelength = inv_freq.reciprocal().mul(2 * std::numbers::pi);
  auto result = at::where(wavelength.gt(low_wavelength), inv_freq.div(*rope.factor), inv_freq);
  const auto smooth = wavelength.reciprocal()
                          .mul(length)
                          .sub(rope.low_freq_factor)
                          .div(rope.high_freq_factor - rope.low_freq_factor);
  const auto blended = smooth.neg().add(1).mul(result).div(*rope.factor).add(smooth.mul(result));
  const auto between = wavelength.lt(high_wavelength)
                           .logical_not()
                           .logical_and(wavelength.gt(low_wavelength).logical_not());
  return at::where(between, blended, result);
}

}  // namespace

RopeFrequencies rope_frequencies(const MistralConfig& config,
                                 int64_t seq_len,
                                 const at::Device& device) {
  const RopeParameters& rope = config.rope;
  if (rope.rope_type == "yarn") {
    return {yarn_inv_freq(config, device), yarn_attention_factor(rope)};
  }
  if (rope.rope_type == "llama3") return {llama3_inv_freq(config, device)};
  if (rope.rope_type == "dynamic") {
    return {powers(dynamic_base(config, seq_len), config.head_dim, device).reciprocal()};
  }
  auto inv_freq = powers(rope.rope_theta, config.head_dim, device).reciprocal();
  if (rope.rope_type == "linear") inv_freq = inv_freq.div(*rope.factor);
  return {std::move(inv_freq)};
}

}  // namespace mistral_ext::layers
