// A decode step of small models, token after token, against the same arithmetic on the CPU in fp64,
// and replayed as a graph against its kernels launched one by one.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -I csrc
//     tests/cuda/decode_step_test.cu
//     csrc/mistral_ext/kernels/cuda/{linear_few_rows,linear_small_batch,decode_step*,step_attention*}.cu

#include <cmath>
#include <cstring>
#include <memory>

#include "decode_step_models.h"
#include "device.cuh"
#include "mistral_ext/kernels/cuda/decode_step.h"
#include "mistral_ext/kernels/cuda/linear_small_batch.h"

namespace mistral_ext::trial {
namespace {

using kernels::bfloat16;
using kernels::float16;
using namespace kernels::cuda;

int failures = 0;
constexpr int kTable = 1024;  // positions

void expect(bool holds, const char* name, const char* what, double value = 0) {
  if (holds) return;
  if (++failures <= 30) std::printf("FAILED %s: %s (%g)\n", name, what, value);
}

template <typename T>
using Weights = std::vector<Tensor<T>>;

template <typename T>
class Trial {
 public:
  explicit Trial(const Model& model) : m_(model), positions_(model.batch), padding_(model.batch) {
    const int64_t q = m_.heads * m_.head_dim;
    const int64_t kv = m_.kv_heads * m_.head_dim;
    uint64_t seed = 1;
    const auto matrix = [&](int64_t out, int64_t in) {
      return Tensor<T>(out * in, 0.0f, 1.7f / std::sqrt(static_cast<float>(in)), ++seed);
    };
    const auto norm = [&] { return Tensor<T>(m_.hidden, 1.0f, 0.2f, ++seed); };
    for (int i = 0; i < m_.layers; ++i) {
      Weights<T> layer;
      layer.push_back(norm());
      layer.push_back(matrix(q, m_.hidden));
      layer.push_back(matrix(kv, m_.hidden));
      layer.push_back(matrix(kv, m_.hidden));
      layer.push_back(matrix(m_.hidden, q));
      layer.push_back(norm());
      layer.push_back(matrix(m_.intermediate, m_.hidden));
      layer.push_back(matrix(m_.intermediate, m_.hidden));
      layer.push_back(matrix(m_.hidden, m_.intermediate));
      layers_.push_back(std::move(layer));
      const auto size = static_cast<size_t>(m_.batch * kv * m_.capacities[i]);
      caches_.emplace_back(size, 0.0f, 1.0f, ++seed);
      caches_.emplace_back(size, 0.0f, 1.0f, ++seed);
    }
    ends_.emplace_back(m_.vocab * m_.hidden, 0.0f, 1.0f, ++seed);
    ends_.push_back(norm());
    ends_.push_back(matrix(m_.vocab, m_.hidden));
    for (int row = 0; row < kTable; ++row) {
      for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < m_.head_dim / 2; ++i) {
          const double angle = row * std::pow(10000.0, -2.0 * i / m_.head_dim);
          cos_sin_.push_back(static_cast<float>(half == 0 ? std::cos(angle) : std::sin(angle)));
        }
      }
    }
    for (int b = 0; b < m_.batch; ++b) {
      padding_[b] = b % 2 == 0 ? m_.padding : 0;
      positions_[b] = m_.past + b % 2 - padding_[b];
    }
  }

  struct Result {
    std::vector<int64_t> tokens;         // [batch, steps]
    std::vector<std::vector<T>> logits;  // a step each
    std::vector<std::vector<T>> caches;  // afterwards
    std::vector<StepCache> counters;
  };

  Result run(bool as_graph, bool has_bulk_copies) {
    Array<float> cos_sin(cos_sin_);
    Array<int64_t> positions(positions_);
    Array<int> padding(padding_);
    Array<int64_t> tokens(first_tokens());
    Array<int64_t> made(m_.batch * m_.steps, 0xff);
    Array<int> steps(1, 0);
    Array<uint8_t> stopped(m_.batch, 0);
    Array<int> running(std::vector<int>{1});
    std::vector<Array<T>> buffers;
    const int64_t q = m_.heads * m_.head_dim;
    const int64_t kv = m_.kv_heads * m_.head_dim;
    for (const int64_t n : {m_.hidden, q, kv, kv, q, m_.intermediate, m_.vocab}) {
      buffers.emplace_back(m_.batch * n, 0xff);
    }
    int sms = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    const int splits = decode_step_splits(m_.batch, m_.heads, m_.kv_heads, sms);
    Array<float> partial(decode_step_scratch(m_.batch, m_.heads, m_.head_dim, splits));
    Array<unsigned> arrived(decode_step_groups(m_.batch, m_.heads, m_.kv_heads) + 1, 0);
    std::vector<Array<T>> keys_values;
    std::vector<StepCache> counters;
    for (int i = 0; i < m_.layers; ++i) {
      for (int j = 0; j < 2; ++j) {
        std::vector<T> copy = caches_[2 * i + j].device.host();
        keys_values.emplace_back(copy);
      }
      const int capacity = m_.capacities[i];
      counters.push_back({keys_values[2 * i].data(),
                          keys_values[2 * i + 1].data(),
                          kv * capacity,
                          static_cast<int64_t>(capacity) * m_.head_dim,
                          m_.past % capacity,
                          std::min(m_.past, capacity),
                          capacity,
                          m_.past});
    }
    Array<StepCache> caches(counters);
    std::vector<DecodeStepLayer<T>> layers;
    for (const auto& w : layers_) {
      layers.push_back({w[0].device.data(),
                        w[1].device.data(),
                        w[2].device.data(),
                        w[3].device.data(),
                        w[4].device.data(),
                        w[5].device.data(),
                        w[6].device.data(),
                        w[7].device.data(),
                        w[8].device.data()});
    }
    DecodeStep<T> step = {};
    step.sizes = {m_.hidden,
                  m_.intermediate,
                  m_.vocab,
                  m_.layers,
                  m_.heads,
                  m_.kv_heads,
                  m_.head_dim,
                  m_.batch,
                  1e-5f,
                  1.0f / std::sqrt(static_cast<float>(m_.head_dim))};
    step.layers = layers.data();
    step.embed_tokens = ends_[0].device.data();
    step.norm = ends_[1].device.data();
    step.lm_head = ends_[2].device.data();
    step.buffers = {buffers[0].data(),
                    buffers[1].data(),
                    buffers[2].data(),
                    buffers[3].data(),
                    buffers[4].data(),
                    buffers[5].data(),
                    buffers[6].data(),
                    partial.data(),
                    arrived.data()};
    step.cos_sin = cos_sin.data();
    step.table = kTable;
    step.splits = splits;
    step.padding = m_.padding == 0 ? nullptr : padding.data();
    step.token.tokens = tokens.data();
    step.token.positions = positions.data();
    step.token.made = made.data();
    step.token.most = m_.steps;
    step.token.steps = steps.data();
    step.token.stopped = stopped.data();
    step.token.running = running.data();
    step.caches = caches.data();

    cudaStream_t stream = nullptr;
    CUDA_CHECK(cudaStreamCreate(&stream));
    const StepLaunch launch{stream, sms, has_bulk_copies, false};
    cudaGraphExec_t replay = nullptr;
    if (as_graph) {
      cudaGraph_t graph = nullptr;
      CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      CUDA_CHECK(decode_step(step, launch));
      CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
      CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
      CUDA_CHECK(cudaGraphDestroy(graph));
    }
    Result result;
    for (int s = 0; s < m_.steps + 1; ++s) {  // the last one changes nothing
      if (as_graph) {
        CUDA_CHECK(cudaGraphLaunch(replay, stream));
      } else {
        CUDA_CHECK(decode_step(step, launch));
      }
      CUDA_CHECK(cudaStreamSynchronize(stream));
      if (s < m_.steps) result.logits.push_back(buffers[6].host());
    }
    if (replay != nullptr) CUDA_CHECK(cudaGraphExecDestroy(replay));
    CUDA_CHECK(cudaStreamDestroy(stream));
    result.tokens = made.host();
    result.counters = caches.host();
    for (const auto& x : keys_values) result.caches.push_back(x.host());
    return result;
  }

  // Logits of one more token in row b, on the CPU. Appends to keys and values.
  std::vector<double> reference(int64_t token, int b, int step) {
    std::vector<double> x(ends_[0].host.begin() + token * m_.hidden,
                          ends_[0].host.begin() + (token + 1) * m_.hidden);
    const int64_t position = positions_[b] + step;
    for (int i = 0; i < m_.layers; ++i) {
      const auto& w = layers_[i];
      const auto normal = normalised(x, w[0].host);
      auto q = rounded<T>(rotated(rounded<T>(product(w[1].host, normal)), position));
      auto k = rounded<T>(rotated(rounded<T>(product(w[2].host, normal)), position));
      const auto v = rounded<T>(product(w[3].host, normal));
      const auto attention = rounded<T>(attended(i, b, step, q, k, v));
      const auto o = product(w[4].host, attention);
      for (size_t j = 0; j < x.size(); ++j) x[j] += o[j];
      x = rounded<T>(x);
      const auto second = normalised(x, w[5].host);
      auto gate = product(w[6].host, second);
      const auto up = product(w[7].host, second);
      for (size_t j = 0; j < gate.size(); ++j) gate[j] *= up[j] / (1 + std::exp(-gate[j]));
      const auto down = product(w[8].host, rounded<T>(gate));
      for (size_t j = 0; j < x.size(); ++j) x[j] += down[j];
      x = rounded<T>(x);
    }
    return product(ends_[2].host, normalised(x, ends_[1].host));
  }

  std::vector<int64_t> first_tokens() const {
    std::vector<int64_t> tokens;
    for (int b = 0; b < m_.batch; ++b) tokens.push_back((b * 37 + 5) % m_.vocab);
    return tokens;
  }

 private:
  static std::vector<double> product(const std::vector<double>& weight,
                                     const std::vector<double>& x) {
    std::vector<double> y(weight.size() / x.size());
    for (size_t r = 0; r < y.size(); ++r) {
      for (size_t i = 0; i < x.size(); ++i) y[r] += weight[r * x.size() + i] * x[i];
    }
    return y;
  }

  static std::vector<double> normalised(std::vector<double> x, const std::vector<double>& weight) {
    double sum = 0;
    for (const double v : x) sum += v * v;
    for (double& v : x) v /= std::sqrt(sum / x.size() + 1e-5f);
    x = rounded<T>(x);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= weight[i];
    return rounded<T>(x);
  }

  std::vector<double> rotated(const std::vector<double>& x, int64_t position) const {
    const int half = m_.head_dim / 2;
    const float* row = cos_sin_.data() + position * m_.head_dim;
    std::vector<double> y(x.size());
    for (size_t head = 0; head < x.size(); head += m_.head_dim) {
      for (int i = 0; i < half; ++i) {
        const double low = x[head + i];
        const double high = x[head + half + i];
        y[head + i] = low * row[i] - high * row[half + i];
        y[head + half + i] = high * row[i] + low * row[half + i];
      }
    }
    return y;
  }

  std::vector<double> attended(int layer,
                               int b,
                               int step,
                               const std::vector<double>& q,
                               const std::vector<double>& k,
                               const std::vector<double>& v) {
    const int d = m_.head_dim;
    const int capacity = m_.capacities[layer];
    const int slot = (m_.past + step) % capacity;
    const int keys = std::min(m_.past + step + 1, capacity);
    auto& all_keys = caches_[2 * layer].host;
    auto& all_values = caches_[2 * layer + 1].host;
    std::vector<double> out(q.size());
    for (int h = 0; h < m_.heads; ++h) {
      const int kv_head = h / (m_.heads / m_.kv_heads);
      const size_t base = static_cast<size_t>(b * m_.kv_heads + kv_head) * capacity * d;
      for (int i = 0; i < d; ++i) {
        all_keys[base + slot * d + i] = k[kv_head * d + i];
        all_values[base + slot * d + i] = v[kv_head * d + i];
      }
      std::vector<double> weight(keys);
      double most = -INFINITY;
      for (int j = 0; j < keys; ++j) {
        for (int i = 0; i < d; ++i) weight[j] += q[h * d + i] * all_keys[base + j * d + i];
        weight[j] /= std::sqrt(d);
        const int token = m_.past + step - slot + j - (j > slot ? capacity : 0);
        if (token < padding_[b]) weight[j] = -INFINITY;
        most = std::max(most, weight[j]);
      }
      double sum = 0;
      for (double& x : weight) sum += x = std::exp(x - most);
      for (int j = 0; j < keys; ++j) {
        for (int i = 0; i < d; ++i) {
          out[h * d + i] += weight[j] / sum * all_values[base + j * d + i];
        }
      }
    }
    return out;
  }

  Model m_;
  std::vector<Weights<T>> layers_;
  Weights<T> caches_;  // keys and values of each layer
  Weights<T> ends_;    // embedding, norm, head
  std::vector<float> cos_sin_;
  std::vector<int64_t> positions_;
  std::vector<int> padding_;
};

template <typename T>
bool equal(const std::vector<std::vector<T>>& a, const std::vector<std::vector<T>>& b) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i) {
    same = std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(T)) == 0;
  }
  return same;
}

template <typename T>
void try_model(const Model& m) {
  Trial<T> trial(m);
  const auto eager = trial.run(false, true);
  const auto graph = trial.run(true, true);
  // Of the kernels for a few rows there are some without bulk copies, of the others not.
  const bool has_others = is_small_batch(m.batch, StepLaunch{.has_bulk_copies = true});
  const auto plain = trial.run(false, has_others);
  expect(equal(eager.logits, graph.logits), m.name, "the graph's logits differ");
  expect(equal(eager.caches, graph.caches), m.name, "the graph's caches differ");
  expect(eager.tokens == graph.tokens, m.name, "the graph's tokens differ");
  expect(equal(eager.logits, plain.logits), m.name, "logits differ without dependent launches");
  for (int i = 0; i < m.layers; ++i) {
    const int seen = m.past + m.steps;
    const auto& c = eager.counters[i];
    expect(c.slot == seen % m.capacities[i], m.name, "slot", c.slot);
    expect(c.stored == std::min(seen, m.capacities[i]), m.name, "stored", c.stored);
    expect(c.seen == seen, m.name, "seen", c.seen);
  }
  double worst = 0;
  for (int b = 0; b < m.batch; ++b) {
    int64_t token = trial.first_tokens()[b];
    for (int s = 0; s < m.steps; ++s) {
      const auto want = trial.reference(token, b, s);
      const T* logits = eager.logits[s].data() + b * m.vocab;
      double error = 0;
      double size = 0;
      int64_t best = 0;
      for (int64_t i = 0; i < m.vocab; ++i) {
        const double got = to_double(logits[i]);
        error += (got - want[i]) * (got - want[i]);
        size += want[i] * want[i];
        if (got > to_double(logits[best])) best = i;
      }
      worst = std::max(worst, std::isnan(error) ? INFINITY : std::sqrt(error / size));
      token = eager.tokens[b * m.steps + s];
      expect(token == best, m.name, "not the first of the likeliest tokens", token);
      if (token < 0 || token >= m.vocab) return;
    }
  }
  // Roundings of a few layers that go the other way: some units of the dtype.
  std::printf(
      "  %-22s eps %.0e: worst relative error of logits %.2g\n", m.name, kEpsilon<T>, worst);
  expect(worst < 4 * kEpsilon<T>, m.name, "error of the logits", worst);
}

template <typename T>
void try_all() {
  for (const auto& m : kModels) try_model<T>(m);
}

}  // namespace
}  // namespace mistral_ext::trial

int main() {
  mistral_ext::trial::try_all<mistral_ext::kernels::bfloat16>();
  mistral_ext::trial::try_all<mistral_ext::kernels::float16>();
  std::printf("decode_step: %d failed\n", mistral_ext::trial::failures);
  return mistral_ext::trial::failures == 0 ? 0 : 1;
}
