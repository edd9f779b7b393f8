#pragma once

// A model of Mistral 7B's shape with random bf16 weights, for the kernels of a decode step.

#include <cmath>
#include <vector>

#include "device.cuh"
#include "mistral_ext/kernels/cuda/decode_step.h"

namespace mistral_ext::trial {

using T = kernels::bfloat16;
using namespace kernels::cuda;

constexpr int64_t kHidden = 4096;
constexpr int64_t kIntermediate = 14336;
constexpr int64_t kVocab = 32000;
constexpr int kLayers = 32;
constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;
constexpr int64_t kKv = kKvHeads * kHeadDim;
constexpr int64_t kLayerWeights =
    2 * kHidden * kHidden + 2 * kKv * kHidden + 3 * kIntermediate * kHidden;
constexpr int64_t kWeights = kLayers * kLayerWeights + kVocab * kHidden;
constexpr int kMostSteps = 1 << 16;
constexpr int kTableBeyond = 8192;
constexpr int kMostBatch = 128;

struct Weights {
  Array<T> all = random<T>(kWeights, 0.0f, 0.0346f, 1);
  Array<T> norms = random<T>((2 * kLayers + 1) * kHidden, 1.0f, 0.1f, 2);
  Array<T> embedding = random<T>(kVocab * kHidden, 0.0f, 1.0f, 3);
  std::vector<DecodeStepLayer<T>> layers;
  const T* lm_head = nullptr;

  Weights() {
    const T* at = all.data();
    const auto take = [&](int64_t out, int64_t in) {
      const T* matrix = at;
      at += out * in;
      return matrix;
    };
    for (int i = 0; i < kLayers; ++i) {
      DecodeStepLayer<T> layer = {};
      layer.input_layernorm = norms.data() + 2 * i * kHidden;
      layer.q_proj = take(kHidden, kHidden);
      layer.k_proj = take(kKv, kHidden);
      layer.v_proj = take(kKv, kHidden);
      layer.o_proj = take(kHidden, kHidden);
      layer.post_attention_layernorm = norms.data() + (2 * i + 1) * kHidden;
      layer.gate_proj = take(kIntermediate, kHidden);
      layer.up_proj = take(kIntermediate, kHidden);
      layer.down_proj = take(kHidden, kIntermediate);
      layers.push_back(layer);
    }
    lm_head = take(kVocab, kHidden);
  }
};

// A step of `batch` rows that have a full cache of `context` tokens.
class Step {
 public:
  Step(const Weights& weights, int batch, int context, int sms)
      : cache_(static_cast<size_t>(2) * kLayers * batch * kKv * context),
        cos_sin_((context + kTableBeyond) * kHeadDim, 0),
        positions_(std::vector<int64_t>(batch, context)),
        tokens_(std::vector<int64_t>(batch, 5)),
        made_(static_cast<size_t>(batch) * kMostSteps),
        buffers_(batch * (2 * kHidden + kHidden + 2 * kKv + kIntermediate + kVocab)),
        partial_(decode_step_scratch(
            batch, kHeads, kHeadDim, decode_step_splits(batch, kHeads, kKvHeads, sms))),
        arrived_(decode_step_groups(batch, kHeads, kKvHeads) + 1, 0) {
    fill(cache_, 0.0f, 1.7f, 4);
    T* at = cache_.data();
    std::vector<StepCache> caches;
    const int64_t size = batch * kKv * context;
    for (int i = 0; i < kLayers; ++i, at += 2 * size) {
      caches.push_back({at,
                        at + size,
                        kKv * context,
                        static_cast<int64_t>(context) * kHeadDim,
                        0,
                        context,
                        context,
                        context});
    }
    CUDA_CHECK(cudaMemcpy(
        caches_.data(), caches.data(), kLayers * sizeof(StepCache), cudaMemcpyHostToDevice));
    step.sizes = {kHidden,
                  kIntermediate,
                  kVocab,
                  kLayers,
                  kHeads,
                  kKvHeads,
                  kHeadDim,
                  batch,
                  1e-5f,
                  1.0f / std::sqrt(static_cast<float>(kHeadDim))};
    step.layers = weights.layers.data();
    step.embed_tokens = weights.embedding.data();
    step.norm = weights.norms.data() + 2 * kLayers * kHidden;
    step.lm_head = weights.lm_head;
    T* buffer = buffers_.data();
    const auto take = [&](int64_t n) {
      T* mine = buffer;
      buffer += batch * n;
      return mine;
    };
    step.buffers = {take(kHidden),
                    take(kHidden),
                    take(kKv),
                    take(kKv),
                    take(kHidden),
                    take(kIntermediate),
                    take(kVocab),
                    partial_.data(),
                    arrived_.data()};
    step.cos_sin = cos_sin_.data();
    step.table = context + kTableBeyond;
    step.splits = decode_step_splits(batch, kHeads, kKvHeads, sms);
    step.token.tokens = tokens_.data();
    step.token.positions = positions_.data();
    step.token.made = made_.data();
    step.token.most = kMostSteps;
    step.token.steps = steps_.data();
    step.token.stopped = stopped_.data();
    step.token.running = running_.data();
    step.caches = caches_.data();
  }

  std::vector<T> logits() const {
    std::vector<T> all(step.sizes.batch * kVocab);
    CUDA_CHECK(cudaMemcpy(
        all.data(), step.buffers.logits, all.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return all;
  }

  DecodeStep<T> step = {};

 private:
  Array<T> cache_;
  Array<float> cos_sin_;
  Array<int64_t> positions_;
  Array<int64_t> tokens_;
  Array<int64_t> made_;
  Array<T> buffers_;
  Array<float> partial_;
  Array<unsigned> arrived_;
  Array<StepCache> caches_{kLayers};
  Array<int> steps_{1, 0};
  Array<uint8_t> stopped_{kMostBatch, 0};
  Array<int> running_{std::vector<int>{1}};
};

cudaError_t linear_rows(const LinearFewRows<T>& args, const StepLaunch& launch) {
  return is_small_batch(args.rows, launch) ? linear_small_batch(args, launch)
                                           : linear_few_rows(args, launch);
}

}  // namespace mistral_ext::trial
