#pragma once

#include <cstddef>
#include <vector>

#include "mistral_ext/kernels/cuda/decode_step.h"
#include "mistral_ext/layers/weighted_module.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

// The weights of a model as the kernels of a decode step take them. The modules are looked up once,
// their tensors every time: any of them may be another one tomorrow.
class StepWeights {
 public:
  explicit StepWeights(const MistralForCausalLM& model);

  // Whether all are dense, on 16 bytes, of one 16-bit dtype on one CUDA device.
  bool serve() const;

  const at::Tensor& embed_tokens() const { return modules_[0]->weight(); }

  // Embedding, last norm, head; then each layer's, in DecodeStepLayer's order.
  std::vector<const void*> addresses() const;
  bool are_at(const std::vector<const void*>& addresses) const;

 private:
  std::vector<const layers::WeightedModule*> modules_;
};

inline constexpr size_t kWeightsBeforeLayers = 3;
inline constexpr size_t kWeightsOfLayer = 9;

}  // namespace mistral_ext::models
