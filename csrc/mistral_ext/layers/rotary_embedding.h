#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <optional>

#include "mistral_ext/core/config.h"

namespace mistral_ext::layers {

// What ops::rotary_embedding needs for one forward pass, shared by all layers.
struct RotaryAngles {
  at::Tensor positions;                   // int64 [batch|1, seq]: rows of cos_sin
  at::Tensor cos_sin;                     // fp32 [rows, head_dim]
  std::optional<at::Tensor> query_scale;  // fp32 [batch|1, seq], Ministral 3
};

// Turns positions into angles. Keeps a table of the first positions, which grows by doubling: a
// decode step then computes no cosine. Not a torch module: it has no parameters. May be used from
// several threads.
class RotaryEmbedding {
 public:
  explicit RotaryEmbedding(const MistralConfig& config) : config_(config) {}

  // Positions first, first + 1, ..., first + count - 1, the same for every row.
  RotaryAngles consecutive(int64_t first, int64_t count, const at::Device& device);

  // Any positions: int64 [batch|1, seq]. On an accelerator their angles are computed afresh, since
  // to look up how far the table must reach would wait for the device.
  RotaryAngles at(const at::Tensor& positions);

  // `dynamic`: the length that the frequencies are made for, which grows with the sequences seen.
  // Whoever keeps this state elsewhere reads it after a pass and sets it before the next.
  int64_t length();
  void set_length(int64_t length);

 private:
  void follow_length(int64_t length, const at::Device& device);
  at::Tensor angles(const at::Tensor& positions) const;
  void ensure_rows(int64_t rows, const at::Device& device);
  std::optional<at::Tensor> query_scale(const at::Tensor& positions) const;

  MistralConfig config_;
  std::mutex mutex_;     // guards what follows
  at::Tensor inv_freq_;  // fp32 [head_dim / 2]
  double attention_factor_ = 1.0;
  int64_t frequencies_length_ = 0;  // `dynamic`: the length that inv_freq_ was made for
  at::Tensor table_;                // fp32 [rows, head_dim]
};

}  // namespace mistral_ext::layers
