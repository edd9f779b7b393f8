// The kernels of a decode step at the shape of Mistral 7B, random bf16 weights, one graph a step,
// beside the time it takes to read the same bytes in a plain sweep. Arguments: a file for the
// results in JSON; for a profiler, a batch size as well: its step alone.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -I csrc -I tests/cuda
//     benchmarks/cuda/decode_step.cu
//     csrc/mistral_ext/kernels/cuda/{linear_few_rows,linear_small_batch,decode_step*,step_attention*}.cu

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "decode_step_model.cuh"
#include "mistral_ext/kernels/cuda/linear_small_batch.h"
#include "timing.cuh"

namespace mistral_ext::trial {
namespace {

class Benchmark {
 public:
  explicit Benchmark(const char* path) : json_(path == nullptr ? nullptr : std::fopen(path, "w")) {
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    sms_ = properties.multiProcessorCount;
    CUDA_CHECK(cudaStreamCreate(&stream_));
    for (const int grid : {2 * sms_, 4 * sms_, 4096}) {
      const double ms = time_of(
          [&](cudaStream_t s) {
            sweep_kernel<<<grid, 512, 0, s>>>(
                reinterpret_cast<const uint4*>(weights_.all.data()), kWeights / 8, out_.data());
          },
          stream_,
          20);
      bandwidth_ = std::max(bandwidth_, 2.0 * kWeights / ms * 1e3);
    }
    std::printf(
        "%s: sweep of %.2f GB: %.3f TB/s\n", properties.name, 2e-9 * kWeights, bandwidth_ * 1e-12);
    print(
        "{\n \"device\": \"%s\",\n \"read_bandwidth\": %.0f,\n \"weight_bytes\": %lld,\n"
        " \"rows\": [",
        properties.name,
        bandwidth_,
        static_cast<long long>(2 * kWeights));
  }

  ~Benchmark() {
    print("\n ]\n}\n");
    if (json_ != nullptr) std::fclose(json_);
  }
  Benchmark(const Benchmark&) = delete;
  Benchmark& operator=(const Benchmark&) = delete;

  void whole_step(int batch, int context, int bytes_in_flight, bool has_bulk_copies) {
    Step step(weights_, batch, context, sms_);
    const StepLaunch launch{stream_, sms_, has_bulk_copies, false, bytes_in_flight};
    const Graph graph([&] { CUDA_CHECK(decode_step(step.step, launch)); }, stream_);
    const double ms = time_of([&](cudaStream_t s) { graph.launch(s); }, stream_);
    const double bytes = 2.0 * kWeights + 4.0 * kLayers * batch * kKv * context;
    const double limit = bytes / bandwidth_ * 1e3;
    std::printf(
        "step batch %d context %5d in flight %3d KB %s: %.3f ms, limit %.3f, fraction %.3f,"
        " %.0f tok/s\n",
        batch,
        context,
        bytes_in_flight / 1024,
        !has_bulk_copies ? "direct" : "ring  ",
        ms,
        limit,
        limit / ms,
        batch / ms * 1e3);
    std::fflush(stdout);
    print(
        "%s\n  {\"batch\": %d, \"context\": %d, \"bytes_in_flight\": %d, \"kernel\": \"%s\","
        " \"milliseconds\": %.4f, \"limit_milliseconds\": %.4f, \"fraction\": %.4f}",
        rows_++ == 0 ? "" : ",",
        batch,
        context,
        bytes_in_flight,
        !has_bulk_copies ? "direct" : "ring",
        ms,
        limit,
        limit / ms);
  }

  // The same logits from a graph, from single launches and from the kernels without a ring.
  void check_bits(int batch) {
    const auto logits = [&](bool as_graph, bool has_bulk_copies) {
      Step step(weights_, batch, 512, sms_);
      const StepLaunch launch{stream_, sms_, has_bulk_copies, false};
      for (int i = 0; i < 3; ++i) {
        if (as_graph) {
          const Graph graph([&] { CUDA_CHECK(decode_step(step.step, launch)); }, stream_);
          graph.launch(stream_);
          CUDA_CHECK(cudaStreamSynchronize(stream_));
        } else {
          CUDA_CHECK(decode_step(step.step, launch));
        }
      }
      CUDA_CHECK(cudaStreamSynchronize(stream_));
      return step.logits();
    };
    const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0 ? "equal" : "DIFFER";
    };
    const auto graph = logits(true, true);
    std::printf("batch %d, third step's logits: graph and single launches %s, ring and direct %s\n",
                batch,
                same(graph, logits(false, true)),
                is_small_batch(batch, StepLaunch{.has_bulk_copies = true})
                    ? "not compared"
                    : same(graph, logits(false, false)));
  }

  // For a profiler.
  void single_launches(int batch) {
    Step step(weights_, batch, 512, sms_);
    CUDA_CHECK(decode_step(step.step, StepLaunch{stream_, sms_, true, false}));
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

  // One kind of kernel alone, for every layer in a row.
  void operators(int batch) {
    Step step(weights_, batch, 512, sms_);
    const auto& buffers = step.step.buffers;
    StepLaunch launch{stream_, sms_, true, true};
    const auto linear = [&](const T* x, int64_t in, const T* norm, LinearEpilogue epilogue) {
      LinearFewRows<T> args = {};
      args.x = x;
      args.x_stride = in;
      args.norm_weight = norm;
      args.eps = 1e-5f;
      args.rows = batch;
      args.in_features = in;
      args.epilogue = epilogue;
      args.residual = buffers.hidden;
      args.residual_stride = kHidden;
      return args;
    };
    const auto row = [&](const char* name, int64_t weights, auto&& one_layer) {
      const Graph graph(
          [&] {
            for (const auto& layer : weights_.layers) CUDA_CHECK(one_layer(layer));
          },
          stream_);
      const double us = time_of([&](cudaStream_t s) { graph.launch(s); }, stream_) * 1e3 / kLayers;
      std::printf("  batch %d %-10s %6.2f us, %.0f GB/s, limit %.2f\n",
                  batch,
                  name,
                  us,
                  2e-3 * weights / us,
                  2e6 * weights / bandwidth_);
    };
    row("q, k, v", kHidden * (kHidden + 2 * kKv), [&](const DecodeStepLayer<T>& layer) {
      auto args = linear(buffers.hidden, kHidden, layer.input_layernorm, LinearEpilogue::kStore);
      args.matrices[0] = {layer.q_proj, kHidden, buffers.query, kHidden};
      args.matrices[1] = {layer.k_proj, kKv, buffers.key, kKv};
      args.matrices[2] = {layer.v_proj, kKv, buffers.value, kKv};
      args.count = 3;
      return linear_rows(args, launch);
    });
    row("attention", 2 * 512 * kKv * batch, [&](const DecodeStepLayer<T>& layer) {
      const auto i = &layer - weights_.layers.data();
      return decode_step_attention(DecodeStepAttention<T>{buffers.query,
                                                          buffers.key,
                                                          buffers.value,
                                                          step.step.token.positions,
                                                          step.step.cos_sin,
                                                          step.step.table,
                                                          step.step.caches + i,
                                                          step.step.token.running,
                                                          nullptr,
                                                          buffers.attention,
                                                          buffers.partial,
                                                          buffers.arrived,
                                                          batch,
                                                          kHeads,
                                                          kKvHeads,
                                                          kHeadDim,
                                                          step.step.splits,
                                                          step.step.sizes.scale},
                                   launch);
    });
    row("o", kHidden * kHidden, [&](const DecodeStepLayer<T>& layer) {
      auto args = linear(buffers.attention, kHidden, nullptr, LinearEpilogue::kAdd);
      args.matrices[0] = {layer.o_proj, kHidden, buffers.hidden, kHidden};
      args.count = 1;
      return linear_rows(args, launch);
    });
    row("gate, up", 2 * kHidden * kIntermediate, [&](const DecodeStepLayer<T>& layer) {
      auto args =
          linear(buffers.hidden, kHidden, layer.post_attention_layernorm, LinearEpilogue::kSwiGlu);
      args.matrices[0] = {layer.gate_proj, kIntermediate, buffers.activated, kIntermediate};
      args.matrices[1] = {layer.up_proj, kIntermediate, nullptr, 0};
      args.count = 2;
      return linear_rows(args, launch);
    });
    row("down", kHidden * kIntermediate, [&](const DecodeStepLayer<T>& layer) {
      auto args = linear(buffers.activated, kIntermediate, nullptr, LinearEpilogue::kAdd);
      args.matrices[0] = {layer.down_proj, kHidden, buffers.hidden, kHidden};
      args.count = 1;
      return linear_rows(args, launch);
    });
    row("head", kHidden * kVocab, [&](const DecodeStepLayer<T>&) {
      auto args = linear(buffers.hidden, kHidden, step.step.norm, LinearEpilogue::kStore);
      args.matrices[0] = {weights_.lm_head, kVocab, buffers.logits, kVocab};
      args.count = 1;
      return linear_rows(args, launch);
    });
  }

 private:
  template <typename... Args>
  void print(const char* format, Args... args) {
    if (json_ != nullptr) std::fprintf(json_, format, args...);
  }

  std::FILE* json_;
  int rows_ = 0;
  int sms_ = 0;
  double bandwidth_ = 0;  // bytes a second
  cudaStream_t stream_ = nullptr;
  Weights weights_;
  Array<unsigned> out_{1};
};

}  // namespace
}  // namespace mistral_ext::trial

int main(int count, char** arguments) {
  using mistral_ext::kernels::cuda::kBytesInFlight;
  mistral_ext::trial::Benchmark benchmark(count > 1 ? arguments[1] : nullptr);
  if (count > 2) {  // a batch
    benchmark.single_launches(std::atoi(arguments[2]));
    return 0;
  }
  for (const int batch : {1, 8, 16, 32}) benchmark.check_bits(batch);
  for (const int kb : {32, 48, 64}) benchmark.whole_step(1, 512, kb * 1024, true);
  benchmark.whole_step(1, 512, kBytesInFlight, false);
  for (const int batch : {2, 4, 5, 8, 16, 32}) {
    benchmark.whole_step(batch, 512, kBytesInFlight, true);
  }
  for (const int batch : {8, 32}) {
    for (const int kb : {40, 64}) benchmark.whole_step(batch, 512, kb * 1024, true);
  }
  for (const int context : {1024, 4096, 32768}) {
    benchmark.whole_step(1, context, kBytesInFlight, true);
  }
  for (const int batch : {8, 32}) benchmark.whole_step(batch, 4096, kBytesInFlight, true);
  for (const int batch : {1, 4, 8, 16, 32}) benchmark.operators(batch);
  benchmark.whole_step(1, 512, kBytesInFlight, true);
  return 0;
}
