#include "mistral_ext/kernels/cuda/decode_step.h"
#include "mistral_ext/kernels/cuda/linear_small_batch.h"
#include "mistral_ext/kernels/types.h"

namespace mistral_ext::kernels::cuda {
namespace {

// Launches one kernel after the other, each but the first dependent on the one ahead.
template <typename T>
class StepLauncher {
 public:
  StepLauncher(const DecodeStep<T>& step, const StepLaunch& launch)
      : step_(step), sizes_(step.sizes), buffers_(step.buffers), launch_(launch) {
    launch_.dependent = false;
  }

  cudaError_t run() {
    add(step_embedding<T>,
        StepEmbedding<T>{.tokens = step_.token.tokens,
                         .table = step_.embed_tokens,
                         .hidden = buffers_.hidden,
                         .vocab_size = sizes_.vocab,
                         .hidden_size = static_cast<int>(sizes_.hidden),
                         .batch = sizes_.batch});
    for (int i = 0; i < sizes_.layers; ++i) add_layer(step_.layers[i], step_.caches + i);
    auto head = linear(buffers_.hidden, sizes_.hidden, step_.norm);
    add_matrix(head, step_.lm_head, sizes_.vocab, buffers_.logits);
    add_linear(head);
    StepToken<T> token = step_.token;
    token.logits = buffers_.logits;
    token.caches = step_.caches;
    token.arrived =
        buffers_.arrived + decode_step_groups(sizes_.batch, sizes_.heads, sizes_.kv_heads);
    token.vocab_size = sizes_.vocab;
    token.batch = sizes_.batch;
    token.layers = sizes_.layers;
    add(step_token<T>, token);
    return error_;
  }

 private:
  template <typename Arguments>
  void add(cudaError_t (*kernel)(const Arguments&, const StepLaunch&), const Arguments& args) {
    if (error_ != cudaSuccess) return;
    error_ = kernel(args, launch_);
    launch_.dependent = true;
  }

  void add_linear(const LinearFewRows<T>& args) {
    add(is_small_batch(args.rows, launch_) ? linear_small_batch<T> : linear_few_rows<T>, args);
  }

  LinearFewRows<T> linear(const T* x, int64_t in_features, const T* norm_weight) const {
    LinearFewRows<T> args = {};
    args.x = x;
    args.x_stride = in_features;
    args.norm_weight = norm_weight;
    args.eps = sizes_.eps;
    args.rows = sizes_.batch;
    args.in_features = in_features;
    args.epilogue = LinearEpilogue::kStore;
    return args;
  }

  static void add_matrix(LinearFewRows<T>& args, const T* weight, int64_t out_features, T* y) {
    args.matrices[args.count++] = {weight, out_features, y, out_features};
  }

  void add_to_residual(const T* x, int64_t in_features, const T* weight) {
    auto args = linear(x, in_features, nullptr);
    add_matrix(args, weight, sizes_.hidden, buffers_.hidden);
    args.residual = buffers_.hidden;
    args.residual_stride = sizes_.hidden;
    args.epilogue = LinearEpilogue::kAdd;
    add_linear(args);
  }

  void add_layer(const DecodeStepLayer<T>& layer, const StepCache* cache) {
    const int64_t query_size = static_cast<int64_t>(sizes_.heads) * sizes_.head_dim;
    const int64_t key_size = static_cast<int64_t>(sizes_.kv_heads) * sizes_.head_dim;
    auto projections = linear(buffers_.hidden, sizes_.hidden, layer.input_layernorm);
    add_matrix(projections, layer.q_proj, query_size, buffers_.query);
    add_matrix(projections, layer.k_proj, key_size, buffers_.key);
    add_matrix(projections, layer.v_proj, key_size, buffers_.value);
    add_linear(projections);
    add(decode_step_attention<T>,
        DecodeStepAttention<T>{.query = buffers_.query,
                               .key = buffers_.key,
                               .value = buffers_.value,
                               .positions = step_.token.positions,
                               .cos_sin = step_.cos_sin,
                               .table = step_.table,
                               .cache = cache,
                               .running = step_.token.running,
                               .padding = step_.padding,
                               .output = buffers_.attention,
                               .partial = buffers_.partial,
                               .arrived = buffers_.arrived,
                               .batch = sizes_.batch,
                               .heads = sizes_.heads,
                               .kv_heads = sizes_.kv_heads,
                               .head_dim = sizes_.head_dim,
                               .splits = step_.splits,
                               .scale = sizes_.scale});
    add_to_residual(buffers_.attention, query_size, layer.o_proj);
    auto gate_up = linear(buffers_.hidden, sizes_.hidden, layer.post_attention_layernorm);
    add_matrix(gate_up, layer.gate_proj, sizes_.intermediate, buffers_.activated);
    add_matrix(gate_up, layer.up_proj, sizes_.intermediate, nullptr);
    gate_up.epilogue = LinearEpilogue::kSwiGlu;
    add_linear(gate_up);
    add_to_residual(buffers_.activated, sizes_.intermediate, layer.down_proj);
  }

  const DecodeStep<T>& step_;
  const DecodeStepSizes& sizes_;
  const DecodeStepBuffers<T>& buffers_;
  StepLaunch launch_;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

int most_step_rows(const StepLaunch& launch) {
  return launch.has_bulk_copies ? kSmallBatch : kFewRows;
}

template <typename T>
cudaError_t decode_step(const DecodeStep<T>& step, const StepLaunch& launch) {
  return StepLauncher<T>(step, launch).run();
}

template cudaError_t decode_step(const DecodeStep<bfloat16>&, const StepLaunch&);
template cudaError_t decode_step(const DecodeStep<float16>&, const StepLaunch&);

}  // namespace mistral_ext::kernels::cuda
