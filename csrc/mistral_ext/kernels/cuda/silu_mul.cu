#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/silu_mul.h"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// Blocks along x share a row, blocks along y are rows.
template <typename T, int kWidth>
__global__ void silu_mul_kernel(const SiluMul<T> args) {
  using A = Accumulator<T>;
  using V = Vector<T, kWidth>;
  const int64_t count = args.width / kWidth;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const auto* gates = reinterpret_cast<const V*>(args.gate + row * args.gate_stride);
    const auto* ups = reinterpret_cast<const V*>(args.up + row * args.up_stride);
    auto* y = reinterpret_cast<V*>(args.y + row * args.width);
    for (int64_t i = first; i < count; i += step) {
      const V gate = gates[i];
      const V up = ups[i];
      V result;
      for (int j = 0; j < kWidth; ++j) {
        const A g = widen(gate.at[j]);
        result.at[j] = narrow<T>(g * sigmoid(g) * widen(up.at[j]));
      }
      y[i] = result;
    }
  }
}

// With s = sigmoid(gate): grad_up = grad_y * gate * s,
// grad_gate = grad_y * up * s * (1 + gate * (1 - s)).
template <typename T, int kWidth>
__global__ void silu_mul_backward_kernel(const SiluMulBackward<T> args) {
  using A = Accumulator<T>;
  using V = Vector<T, kWidth>;
  const int64_t count = args.count / kWidth;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    const V gradient = reinterpret_cast<const V*>(args.grad_y)[i];
    const V gate = reinterpret_cast<const V*>(args.gate)[i];
    const V up = reinterpret_cast<const V*>(args.up)[i];
    V grad_gate;
    V grad_up;
    for (int j = 0; j < kWidth; ++j) {
      const A dy = widen(gradient.at[j]);
      const A g = widen(gate.at[j]);
      const A s = sigmoid(g);
      grad_gate.at[j] = narrow<T>(dy * widen(up.at[j]) * s * (A(1) + g * (A(1) - s)));
      grad_up.at[j] = narrow<T>(dy * g * s);
    }
    reinterpret_cast<V*>(args.grad_gate)[i] = grad_gate;
    reinterpret_cast<V*>(args.grad_up)[i] = grad_up;
  }
}

template <typename T, int kWidth>
void launch(const SiluMul<T>& args, cudaStream_t stream) {
  const dim3 blocks(blocks_for(ceil_div(args.width / kWidth, kThreads)),
                    blocks_for(args.rows, kMostBlocksAside));
  silu_mul_kernel<T, kWidth><<<blocks, kThreads, 0, stream>>>(args);
}

template <typename T, int kWidth>
void launch(const SiluMulBackward<T>& args, cudaStream_t stream) {
  const unsigned blocks = blocks_for(ceil_div(args.count / kWidth, kThreads));
  silu_mul_backward_kernel<T, kWidth><<<blocks, kThreads, 0, stream>>>(args);
}

}  // namespace

template <typename T>
cudaError_t silu_mul(const SiluMul<T>& args, cudaStream_t stream) {
  if (args.rows == 0 || args.width == 0) return cudaSuccess;
  if (is_aligned(args.gate, args.width, args.gate_stride) &&
      is_aligned(args.up, args.width, args.up_stride) && is_aligned(args.y, args.width)) {
    launch<T, kFullWidth<T>>(args, stream);
  } else {
    launch<T, 1>(args, stream);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t silu_mul_backward(const SiluMulBackward<T>& args, cudaStream_t stream) {
  const int64_t n = args.count;
  if (n == 0) return cudaSuccess;
  if (is_aligned(args.grad_y, n) && is_aligned(args.gate, n) && is_aligned(args.up, n) &&
      is_aligned(args.grad_gate, n) && is_aligned(args.grad_up, n)) {
    launch<T, kFullWidth<T>>(args, stream);
  } else {
    launch<T, 1>(args, stream);
  }
  return cudaGetLastError();
}

#define MISTRAL_EXT_INSTANTIATE(T)                                \
  template cudaError_t silu_mul(const SiluMul<T>&, cudaStream_t); \
  template cudaError_t silu_mul_backward(const SiluMulBackward<T>&, cudaStream_t);
MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(double)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)

}  // namespace mistral_ext::kernels::cuda
