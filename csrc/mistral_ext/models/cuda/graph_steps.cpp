// Decode steps on a CUDA device, one graph a step. What a graph has in it are the addresses of the
// weights, of buffers of its own and of the table of angles; all that changes from step to step and
// from cache to cache, the buffers of keys and values among it, is on the device beside it.

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mistral_ext/kernels/types.h"
#include "mistral_ext/models/cuda/step_events.h"
#include "mistral_ext/models/cuda/step_graph.h"
#include "mistral_ext/models/cuda/step_standing.h"
#include "mistral_ext/models/cuda/step_weights.h"
#include "mistral_ext/models/token_steps.h"

namespace mistral_ext::models {
namespace {

using kernels::cuda::StepCache;

constexpr int64_t kMostTokens = 1024;  // of one run
constexpr size_t kMostEos = 32;
constexpr int64_t kMostPositions = INT64_C(1) << 20;
constexpr int64_t kMostVocab = INT64_C(1) << 28;  // what 32-bit counters of the kernels hold

// Whether steps are graphs; or, to find out what one of them does, launches one by one.
bool use_graphs() {
  const char* value = std::getenv("MISTRAL_EXT_CUDA_GRAPHS");
  return value == nullptr || std::string_view(value) != "0";
}

// What changes from step to step. On the device it is followed by the caches of the layers.
struct State {
  std::array<int64_t, kernels::cuda::kMostStepRows> tokens;
  std::array<int64_t, kernels::cuda::kMostStepRows> positions;
  std::array<int64_t, kMostEos> eos;
  std::array<int, kernels::cuda::kMostStepRows> padding;
  std::array<uint8_t, kernels::cuda::kMostStepRows> stopped;
  int steps;  // counted on to kMostTokens
  int running;
};

template <typename T>
class GraphSteps : public TokenSteps {
 public:
  GraphSteps(MistralForCausalLM& model, int64_t batch)
      : model_(model), weights_(model), device_(model.device()) {
    const c10::cuda::CUDAGuard guard(device_);
    C10_CUDA_CHECK(kernels::cuda::describe_device(&launch_));
    const auto& config = model.config();
    sizes_ = {.hidden = config.hidden_size,
              .intermediate = config.intermediate_size,
              .vocab = config.vocab_size,
              .layers = static_cast<int>(config.num_hidden_layers),
              .heads = static_cast<int>(config.num_attention_heads),
              .kv_heads = static_cast<int>(config.num_key_value_heads),
              .head_dim = static_cast<int>(config.head_dim),
              .batch = static_cast<int>(batch),
              .eps = static_cast<float>(config.rms_norm_eps),
              .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)))};
    splits_ = kernels::cuda::decode_step_splits(
        sizes_.batch, sizes_.heads, sizes_.kv_heads, launch_.multiprocessors);
    const auto bytes = at::TensorOptions().dtype(at::kByte).device(device_);
    buffers_ = at::empty({batch * elements_of_row() * static_cast<int64_t>(sizeof(T))}, bytes);
    partial_ = at::empty(
        {kernels::cuda::decode_step_scratch(sizes_.batch, sizes_.heads, sizes_.head_dim, splits_)},
        bytes.dtype(at::kFloat));
    arrived_ = at::zeros(
        {kernels::cuda::decode_step_groups(sizes_.batch, sizes_.heads, sizes_.kv_heads) + 1},
        bytes.dtype(at::kInt));
    made_ = at::empty({batch, kMostTokens}, bytes.dtype(at::kLong));
    state_ = at::empty({state_bytes()}, bytes);
    host_state_ = at::empty({state_bytes()}, at::TensorOptions().dtype(at::kByte));
  }

  GraphSteps(const GraphSteps&) = delete;
  GraphSteps& operator=(const GraphSteps&) = delete;
  // The buffers go back to the stream they came from; steps may still run on another one.
  ~GraphSteps() override { last_use_.wait(); }

  bool serves(const cache::KVCache& cache, const StepRows& rows) const override {
    const auto& first = weights_.embed_tokens();
    if (first.device() != device_ || first.scalar_type() != dtype() || !weights_.serve()) {
      return false;
    }
    const auto [lowest, highest] = std::ranges::minmax(rows.positions);
    if (lowest < 0 || std::max(highest, cache.seen()) >= kMostPositions) return false;
    if (rows.eos_token_ids.size() > kMostEos) return false;
    for (int64_t i = 0; i < cache.num_layers(); ++i) {
      if (!cache.layer(i).is_plain()) return false;
    }
    return true;
  }

  at::Tensor logits(cache::KVCache& cache, const StepRows& rows) override {
    const c10::cuda::CUDAGuard guard(device_);
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    last_use_.wait(stream);
    int64_t one = 1;
    StepStanding standing = step_standing(cache, rows, one);
    int64_t left = std::exchange(steps_left_, 0);
    if (left > 0 && standing == standing_) {
      device_tokens().copy_(rows.tokens);
    } else {
      upload(standing, rows, kMostTokens);
      left = kMostTokens;
    }
    prepare(standing.highest_position() + 1, pad_token_id_);
    launch(stream);
    for (int64_t i = 0; i < cache.num_layers(); ++i) cache.layer(i).appended(1);
    standing.count_on();
    standing_ = std::move(standing);
    steps_left_ = left - 1;
    const int64_t bytes = sizes_.batch * sizes_.vocab * static_cast<int64_t>(sizeof(T));
    const auto logits = buffers_.narrow(0, buffers_.numel() - bytes, bytes).view(dtype());
    auto copy = logits.view({sizes_.batch, sizes_.vocab}).to(at::kFloat);
    last_use_.record(stream);
    return copy;
  }

  at::Tensor run(cache::KVCache& cache,
                 StepRows& rows,
                 int64_t count,
                 const std::function<bool()>& go_on) override {
    const c10::cuda::CUDAGuard guard(device_);
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    last_use_.wait(stream);
    steps_left_ = 0;
    const StepStanding standing = step_standing(cache, rows, count);
    const int64_t position = standing.highest_position();
    count = std::min({count, kMostTokens, kMostPositions - position});
    upload(standing, rows, count);
    prepare(position + count, rows.pad_token_id);
    const int* running = &device_state()->running;
    int64_t launched = 0;
    std::exception_ptr thrown;
    try {
      for (; launched < count; ++launched) {
        if (launched > 0 && !go_on()) break;
        if (launched >= kAhead && !reports_.wait(launched - kAhead)) break;
        if (!weights_.are_at(addresses_)) break;  // another run looks at them anew
        launch(stream);
        reports_.ask(launched, running, stream);
      }
    } catch (...) {
      thrown = std::current_exception();
    }
    const int64_t made = download(rows, kMostTokens - count);
    for (int64_t i = 0; i < cache.num_layers(); ++i) cache.layer(i).appended(made);
    if (thrown) std::rethrow_exception(thrown);
    return made_.narrow(1, kMostTokens - count, made).clone();
  }

 private:
  static constexpr at::ScalarType dtype() {
    return std::is_same_v<T, kernels::bfloat16> ? at::kBFloat16 : at::kHalf;
  }

  int64_t query_size() const { return static_cast<int64_t>(sizes_.heads) * sizes_.head_dim; }
  int64_t key_size() const { return static_cast<int64_t>(sizes_.kv_heads) * sizes_.head_dim; }
  int64_t elements_of_row() const {
    return sizes_.hidden + 2 * query_size() + 2 * key_size() + sizes_.intermediate + sizes_.vocab;
  }

  int64_t state_bytes() const {
    return static_cast<int64_t>(sizeof(State) + sizes_.layers * sizeof(StepCache));
  }
  // An address on the device.
  State* device_state() const { return static_cast<State*>(state_.mutable_data_ptr()); }

  // Tells the device where things stand, and that up to `count` tokens follow.
  void upload(const StepStanding& standing, const StepRows& rows, int64_t count) {
    State state = {};
    std::ranges::copy(rows.positions, state.positions.begin());
    std::ranges::copy(rows.padding, state.padding.begin());
    state.eos.fill(-1);
    std::ranges::copy(rows.eos_token_ids, state.eos.begin());
    std::ranges::copy(rows.stopped, state.stopped.begin());
    state.steps = static_cast<int>(kMostTokens - count);
    state.running = 1;
    const auto& caches = standing.caches;
    auto* bytes = static_cast<uint8_t*>(host_state_.mutable_data_ptr());
    std::memcpy(bytes, &state, sizeof(State));
    std::memcpy(bytes + sizeof(State), caches.data(), caches.size() * sizeof(StepCache));
    state_.copy_(host_state_);
    device_tokens().copy_(rows.tokens);
  }

  at::Tensor device_tokens() const {
    const int64_t bytes = sizes_.batch * static_cast<int64_t>(sizeof(int64_t));
    return state_.narrow(0, 0, bytes).view(at::kLong);
  }

  // Waits for the device. Returns how many tokens it has made.
  int64_t download(StepRows& rows, int64_t first) {
    const auto bytes = state_.narrow(0, 0, sizeof(State)).cpu();
    State state;
    std::memcpy(&state, bytes.const_data_ptr(), sizeof(State));
    rows.tokens = device_tokens().clone();
    for (size_t i = 0; i < rows.stopped.size(); ++i) rows.stopped[i] = state.stopped.at(i) != 0;
    return state.steps - first;
  }

  // Sees to it that graph_ is of the weights as they are and of a table for so many positions.
  void prepare(int64_t positions, int64_t pad_token_id) {
    const auto angles = model_.model().rotary_emb().consecutive(positions - 1, 1, device_);
    const bool use = use_graphs();
    if (weights_.are_at(addresses_) && angles.cos_sin.is_same(cos_sin_) &&
        pad_token_id == pad_token_id_ && use == use_graphs_) {
      return;
    }
    cos_sin_ = angles.cos_sin;
    pad_token_id_ = pad_token_id;
    use_graphs_ = use;
    addresses_ = weights_.addresses();
    layers_.clear();
    const auto weight = [&](size_t i) { return static_cast<const T*>(addresses_[i]); };
    for (size_t i = kWeightsBeforeLayers; i < addresses_.size(); i += kWeightsOfLayer) {
      layers_.push_back({weight(i),
                         weight(i + 1),
                         weight(i + 2),
                         weight(i + 3),
                         weight(i + 4),
                         weight(i + 5),
                         weight(i + 6),
                         weight(i + 7),
                         weight(i + 8)});
    }
    if (use_graphs_) graph_.capture([&](cudaStream_t stream) { return launch_step(stream); });
  }

  void launch(cudaStream_t stream) {
    if (use_graphs_) {
      graph_.launch(stream);
    } else {
      C10_CUDA_CHECK(launch_step(stream));
    }
  }

  cudaError_t launch_step(cudaStream_t stream) {
    kernels::cuda::DecodeStep<T> step = {};
    step.sizes = sizes_;
    step.layers = layers_.data();
    step.embed_tokens = static_cast<const T*>(addresses_[0]);
    step.norm = static_cast<const T*>(addresses_[1]);
    step.lm_head = static_cast<const T*>(addresses_[2]);
    auto* at = static_cast<T*>(buffers_.mutable_data_ptr());
    const auto take = [&](int64_t elements) {
      T* mine = at;
      at += sizes_.batch * elements;
      return mine;
    };
    step.buffers.hidden = take(sizes_.hidden);
    step.buffers.query = take(query_size());
    step.buffers.key = take(key_size());
    step.buffers.value = take(key_size());
    step.buffers.attention = take(query_size());
    step.buffers.activated = take(sizes_.intermediate);
    step.buffers.logits = take(sizes_.vocab);  // last: of any size
    step.buffers.partial = partial_.mutable_data_ptr<float>();
    step.buffers.arrived = reinterpret_cast<unsigned*>(arrived_.mutable_data_ptr<int>());
    step.cos_sin = cos_sin_.const_data_ptr<float>();
    step.table = cos_sin_.size(0);
    step.splits = splits_;
    State* state = device_state();
    step.padding = state->padding.data();
    step.token.tokens = state->tokens.data();
    step.token.positions = state->positions.data();
    step.token.made = made_.mutable_data_ptr<int64_t>();
    step.token.most = kMostTokens;
    step.token.steps = &state->steps;
    step.token.stopped = state->stopped.data();
    step.token.eos = state->eos.data();
    step.token.eos_count = kMostEos;
    step.token.pad_token = pad_token_id_;
    step.token.running = &state->running;
    step.caches = reinterpret_cast<StepCache*>(state + 1);
    launch_.stream = stream;
    return kernels::cuda::decode_step(step, launch_);
  }

  MistralForCausalLM& model_;
  StepWeights weights_;
  c10::Device device_;
  kernels::cuda::StepLaunch launch_ = {};
  kernels::cuda::DecodeStepSizes sizes_ = {};
  int splits_ = 1;
  at::Tensor buffers_, partial_, arrived_, made_;
  at::Tensor state_;       // State, then the caches
  at::Tensor host_state_;  // the same on the CPU
  Reports reports_;
  LastUse last_use_;
  StepStanding standing_;  // the device's, where it has steps left: logits() may go on from there
  int64_t steps_left_ = 0;
  // What graph_ was captured with.
  std::vector<const void*> addresses_;
  std::vector<kernels::cuda::DecodeStepLayer<T>> layers_;
  at::Tensor cos_sin_;
  int64_t pad_token_id_ = 0;
  bool use_graphs_ = true;
  StepGraph graph_;
};

bool are_sizes_served(const MistralConfig& config) {
  using kernels::cuda::kFewRowsUnit;
  const auto is_served = [](int64_t features) {
    return features % kFewRowsUnit == 0 && features <= kernels::cuda::kFewRowsMostFeatures;
  };
  return is_served(config.hidden_size) && is_served(config.intermediate_size) &&
         is_served(config.num_attention_heads * config.head_dim) &&
         config.vocab_size < kMostVocab && config.head_dim % kernels::cuda::kStepHeadDimUnit == 0 &&
         config.head_dim <= kernels::cuda::kStepMostHeadDim;
}

// Angles that a table of positions gives.
bool are_angles_served(const MistralConfig& config) {
  return config.rope.rope_type != "dynamic" &&
         !(config.model_type == "ministral3" && config.rope.llama_4_scaling_beta);
}

std::unique_ptr<TokenSteps> make_graph_steps(MistralForCausalLM& model, int64_t batch) {
  const auto device = model.device();
  if (!device.is_cuda() || !are_sizes_served(model.config()) ||
      !are_angles_served(model.config())) {
    return nullptr;
  }
  int major = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()));
  if (major < 8) return nullptr;
  const c10::cuda::CUDAGuard guard(device);
  kernels::cuda::StepLaunch launch = {};
  C10_CUDA_CHECK(kernels::cuda::describe_device(&launch));
  if (batch > kernels::cuda::most_step_rows(launch)) return nullptr;
  switch (model.dtype()) {
    case at::kBFloat16:
      return std::make_unique<GraphSteps<kernels::bfloat16>>(model, batch);
    case at::kHalf:
      return std::make_unique<GraphSteps<kernels::float16>>(model, batch);
    default:
      return nullptr;
  }
}

[[maybe_unused]] const bool registered = [] {
  TokenStepsPool::set_factory(&make_graph_steps);
  return true;
}();

}  // namespace
}  // namespace mistral_ext::models
