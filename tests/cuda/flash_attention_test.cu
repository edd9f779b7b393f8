// flash_attention against sums in fp64. `flash_attention_test small` is for compute-sanitizer.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -DMISTRAL_EXT_HAS_SM90A -I csrc
//     tests/cuda/flash_attention_test.cu csrc/mistral_ext/kernels/cuda/flash_attention.cu
//     csrc/mistral_ext/kernels/cuda/flash_attention_plan.cu
//     csrc/mistral_ext/kernels/cuda/tensor_copy.cu

#include <algorithm>
#include <cmath>
#include <cstring>

#include "device.cuh"
#include "mistral_ext/kernels/cuda/flash_attention.h"

namespace mistral_ext::trial {
namespace {

using kernels::bfloat16;
using kernels::float16;
using kernels::cuda::FlashAttention;

int failures = 0;
int cases = 0;

enum class Hides { kNothing, kLeft, kRight, kSome, kAllOfOne };
enum class Packs { kNothing, kRuns, kTurns };

struct Case {
  int batch, heads, kv_heads, head_dim, query_len, key_len;
  bool is_causal;
  int sliding_window;
  Hides hides;
  Packs packs;
};

// A thread a query and head: what it sees, the softmax and the mean, in fp64.
template <typename T>
__global__ void exact_kernel(FlashAttention<T> args,
                             const uint8_t* mask,
                             double* output,
                             double* logsumexp) {
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (at >= args.batch * args.heads * args.query_len) return;
  const int i = at % args.query_len;
  const int head = at / args.query_len % args.heads;
  const int b = at / args.query_len / args.heads;
  const int slot = args.key_len - args.query_len + i;
  const int kv_head = head / (args.heads / args.kv_heads);
  const T* query = args.query + b * args.query_batch_stride + i * args.query_stride +
                   head * args.query_head_stride;
  const int64_t* ids = args.sequence_ids + b * args.sequence_ids_batch_stride;
  double* out =
      output + (static_cast<int64_t>(b * args.query_len + i) * args.heads + head) * args.head_dim;
  const auto score = [&](int j) {
    if (args.is_causal && j > slot) return -INFINITY * 1.0;
    if (args.sliding_window > 0 && j <= slot - args.sliding_window) return -INFINITY * 1.0;
    if (mask != nullptr && mask[b * args.key_len + j] == 0) return -INFINITY * 1.0;
    if (args.sequence_ids != nullptr && ids[j] != ids[slot]) return -INFINITY * 1.0;
    const T* key =
        args.key + b * args.key_batch_stride + j * args.key_stride + kv_head * args.key_head_stride;
    double sum = 0;
    for (int d = 0; d < args.head_dim; ++d) sum += to_double(query[d]) * to_double(key[d]);
    return sum * args.scale;
  };
  double greatest = -INFINITY;
  for (int j = 0; j < args.key_len; ++j) greatest = fmax(greatest, score(j));
  double total = 0;
  for (int d = 0; d < args.head_dim; ++d) out[d] = 0;
  for (int j = 0; j < args.key_len && greatest != -INFINITY; ++j) {
    const double weight = exp(score(j) - greatest);
    if (weight == 0) continue;
    total += weight;
    const T* value = args.value + b * args.value_batch_stride + j * args.value_stride +
                     kv_head * args.value_head_stride;
    for (int d = 0; d < args.head_dim; ++d) out[d] += weight * to_double(value[d]);
  }
  for (int d = 0; d < args.head_dim; ++d) out[d] = total == 0 ? 0 : out[d] / total;
  logsumexp[(static_cast<int64_t>(b) * args.heads + head) * args.query_len + i] =
      total == 0 ? -INFINITY : greatest + log(total);
}

std::vector<uint8_t> mask_of(const Case& c) {
  std::vector<uint8_t> mask(static_cast<size_t>(c.batch) * c.key_len, 1);
  for (int b = 0; b < c.batch; ++b) {
    for (int j = 0; j < c.key_len; ++j) {
      bool sees = true;
      if (c.hides == Hides::kLeft) sees = j >= b * c.key_len / c.batch;
      if (c.hides == Hides::kRight) sees = j < c.key_len - b * c.key_len / c.batch;
      if (c.hides == Hides::kSome) sees = (j * 7 + b) % 5 < 2;
      if (c.hides == Hides::kAllOfOne) sees = b != 0;
      mask[static_cast<size_t>(b) * c.key_len + j] = sees ? 3 : 0;
    }
  }
  return mask;
}

std::vector<int64_t> ids_of(const Case& c) {
  std::vector<int64_t> ids;
  for (int b = 0; b < c.batch; ++b) {
    for (int j = 0; j < c.key_len; ++j) {
      const int64_t run = j / (c.key_len / 5 + 1);
      ids.push_back(c.packs == Packs::kRuns ? (run << 33) + b : j % 3 - 1);
    }
  }
  return ids;
}

template <typename T>
void run(const Case& c) {
  const int64_t key_row = static_cast<int64_t>(c.kv_heads) * c.head_dim;
  const int64_t query_row = static_cast<int64_t>(c.heads) * c.head_dim;
  const auto query = random<T>(c.batch * c.query_len * query_row, 0, 3, cases);
  // Keys as a cache holds them, with room behind; values as a layer makes them.
  const int room = c.key_len + 3;
  const auto key = random<T>(c.batch * room * key_row, 0, 1, cases + 1000);
  const auto value = random<T>(c.batch * c.key_len * key_row, 0.5, 1, cases + 2000);
  const Array<T> output(c.batch * c.query_len * query_row, 0xFF);
  const Array<float> logsumexp(static_cast<size_t>(c.batch) * c.heads * c.query_len, 0xFF);
  const Array<uint8_t> mask(mask_of(c));
  const Array<int64_t> ids(ids_of(c));
  const Array<uint32_t> visible(c.batch * kernels::cuda::visible_words(c.key_len), 0xFF);
  const Array<int64_t> ranges(c.batch * kernels::cuda::flash_tiles(c.key_len) * 2, 0xFF);
  FlashAttention<T> args = {};
  args.query = query.data();
  args.query_batch_stride = c.query_len * query_row;
  args.query_stride = query_row;
  args.query_head_stride = c.head_dim;
  args.key = key.data();
  args.key_batch_stride = room * key_row;
  args.key_head_stride = static_cast<int64_t>(room) * c.head_dim;
  args.key_stride = c.head_dim;
  args.value = value.data();
  args.value_batch_stride = c.key_len * key_row;
  args.value_stride = key_row;
  args.value_head_stride = c.head_dim;
  args.output = output.data();
  args.logsumexp = logsumexp.data();
  args.batch = c.batch;
  args.heads = c.heads;
  args.kv_heads = c.kv_heads;
  args.head_dim = c.head_dim;
  args.query_len = c.query_len;
  args.key_len = c.key_len;
  args.is_causal = c.is_causal;
  args.sliding_window = c.sliding_window;
  args.multiprocessors = cases % 3 == 0 ? 132 : cases % 3 == 1 ? 5 : 1;
  args.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
  if (c.hides != Hides::kNothing) {
    CUDA_CHECK(kernels::cuda::plan_visible_keys(
        mask.data(), c.key_len, 1, c.batch, c.key_len, visible.data(), nullptr));
    args.visible = visible.data();
    args.visible_batch_stride = kernels::cuda::visible_words(c.key_len);
  }
  if (c.packs != Packs::kNothing) {
    CUDA_CHECK(kernels::cuda::plan_sequence_ranges(
        ids.data(), c.batch, c.key_len, ranges.data(), nullptr));
    args.sequence_ids = ids.data();
    args.sequence_ids_batch_stride = c.key_len;
    args.sequence_ranges = ranges.data();
    args.sequence_ranges_batch_stride = 2 * kernels::cuda::flash_tiles(c.key_len);
  }
  CUDA_CHECK(kernels::cuda::flash_attention(args, nullptr));
  CUDA_CHECK(cudaDeviceSynchronize());
  const Array<double> exact(output.size());
  const Array<double> exact_logsumexp(logsumexp.size());
  const auto threads = static_cast<unsigned>(logsumexp.size());
  exact_kernel<<<(threads + 127) / 128, 128>>>(args,
                                               c.hides == Hides::kNothing ? nullptr : mask.data(),
                                               exact.data(),
                                               exact_logsumexp.data());
  CUDA_CHECK(cudaDeviceSynchronize());

  double worst = 0;
  double worst_logsumexp = 0;
  const auto differs = [](double a, double b) {
    return a == b ? 0.0 : std::isfinite(a - b) ? std::abs(a - b) / (1 + std::abs(b)) : INFINITY;
  };
  const auto made = output.host();
  const auto wanted = exact.host();
  for (size_t i = 0; i < made.size(); ++i) {
    worst = std::max(worst, differs(to_double(made[i]), wanted[i]));
  }
  const auto made_logsumexp = logsumexp.host();
  const auto wanted_logsumexp = exact_logsumexp.host();
  for (size_t i = 0; i < made_logsumexp.size(); ++i) {
    worst_logsumexp = std::max(worst_logsumexp, differs(made_logsumexp[i], wanted_logsumexp[i]));
  }
  ++cases;
  // The weights are rounded to T, and the mean of values of about 1 is.
  if (worst < kEpsilon<T> && worst_logsumexp < 5e-6) return;
  ++failures;
  std::printf(
      "batch %d heads %d/%d dim %d queries %d keys %d causal %d window %d hides %d packs %d: "
      "output "
      "%.2g logsumexp %.2g\n",
      c.batch,
      c.heads,
      c.kv_heads,
      c.head_dim,
      c.query_len,
      c.key_len,
      c.is_causal,
      c.sliding_window,
      static_cast<int>(c.hides),
      static_cast<int>(c.packs),
      worst,
      worst_logsumexp);
}

void run_all(bool small) {
  const std::vector<int> lengths = small ? std::vector{1, 130} : std::vector{1, 63, 128, 129, 700};
  for (const int head_dim : {64, 128}) {
    for (const int query_len : lengths) {
      for (const int more : {0, 1, 200}) {
        for (const bool is_causal : {true, false}) {
          for (const int window : {0, 1, 100, 129}) {
            if (small && window == 1) continue;
            const Case plain = {2,
                                4,
                                2,
                                head_dim,
                                query_len,
                                query_len + more,
                                is_causal,
                                window,
                                Hides::kNothing,
                                Packs::kNothing};
            run<bfloat16>(plain);
            run<float16>(plain);
            if (window == 1) continue;
            for (const auto hides : {Hides::kLeft, Hides::kRight, Hides::kSome, Hides::kAllOfOne}) {
              Case masked = plain;
              masked.hides = hides;
              run<bfloat16>(masked);
            }
            for (const auto packs : {Packs::kRuns, Packs::kTurns}) {
              Case packed = plain;
              packed.packs = packs;
              run<bfloat16>(packed);
              packed.hides = Hides::kSome;
              run<float16>(packed);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mistral_ext::trial

int main(int argc, char** argv) {
  using namespace mistral_ext::trial;
  run_all(argc > 1 && std::strcmp(argv[1], "small") == 0);
  std::printf("flash_attention: %d cases, %d failed\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
