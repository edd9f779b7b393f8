#include "mistral_ext/kernels/cuda/block_sum.cuh"
#include "mistral_ext/kernels/cuda/launch.h"
#include "mistral_ext/kernels/cuda/rms_norm.h"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

__device__ float reciprocal_root(float x) { return rsqrtf(x); }
__device__ double reciprocal_root(double x) { return rsqrt(x); }

template <typename A>
__device__ A scale_of(A squares, int64_t hidden, double eps) {
  return reciprocal_root(squares / static_cast<A>(hidden) + static_cast<A>(eps));
}

// A block a row. The row is read twice, the second time out of the cache.
template <typename T, int kWidth, bool kAdd>
__global__ void rms_norm_kernel(const RmsNorm<T> args) {
  using A = Accumulator<T>;
  using V = Vector<T, kWidth>;
  __shared__ A partial[32];
  const int64_t count = args.hidden / kWidth;
  const auto* weight = reinterpret_cast<const V*>(args.weight);
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const auto* x = reinterpret_cast<const V*>(args.x + row * args.x_stride);
    auto* y = reinterpret_cast<V*>(args.y + row * args.hidden);
    [[maybe_unused]] const V* residual = nullptr;
    [[maybe_unused]] V* sum = nullptr;
    if constexpr (kAdd) {
      residual = reinterpret_cast<const V*>(args.residual + row * args.residual_stride);
      sum = reinterpret_cast<V*>(args.sum + row * args.hidden);
    }
    A squares = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      V v = x[i];
      if constexpr (kAdd) {
        const V r = residual[i];
        for (int j = 0; j < kWidth; ++j) v.at[j] = narrow<T>(widen(v.at[j]) + widen(r.at[j]));
        sum[i] = v;
      }
      for (int j = 0; j < kWidth; ++j) squares += widen(v.at[j]) * widen(v.at[j]);
    }
    const A scale = scale_of(block_sum(squares, partial), args.hidden, args.eps);
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      V v;
      if constexpr (kAdd) {
        v = sum[i];  // this thread's own
      } else {
        v = x[i];
      }
      const V w = weight[i];
      for (int j = 0; j < kWidth; ++j) {
        v.at[j] = narrow<T>(rounded<T>(widen(v.at[j]) * scale) * widen(w.at[j]));
      }
      y[i] = v;
    }
  }
}

// A block a row: grad_x, and the row's scale for the weight's gradient.
//   grad_x = scale * (grad_y * weight - x * along) + grad_sum
//   along = scale^2 * mean(grad_y * weight * x)
template <typename T, int kWidth>
__global__ void rms_norm_backward_kernel(const RmsNormBackward<T, Accumulator<T>> args) {
  using A = Accumulator<T>;
  using V = Vector<T, kWidth>;
  __shared__ A partial[32];
  const int64_t count = args.hidden / kWidth;
  const auto* weight = reinterpret_cast<const V*>(args.weight);
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t start = row * args.hidden;
    const auto* x = reinterpret_cast<const V*>(args.x + start);
    const auto* grad_y = reinterpret_cast<const V*>(args.grad_y + start);
    const auto* grad_sum =
        args.grad_sum == nullptr ? nullptr : reinterpret_cast<const V*>(args.grad_sum + start);
    auto* grad_x = reinterpret_cast<V*>(args.grad_x + start);
    A squares = 0;
    A products = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      const V v = x[i];
      const V g = grad_y[i];
      const V w = weight[i];
      for (int j = 0; j < kWidth; ++j) {
        const A value = widen(v.at[j]);
        squares += value * value;
        products += widen(g.at[j]) * widen(w.at[j]) * value;
      }
    }
    const A scale = scale_of(block_sum(squares, partial), args.hidden, args.eps);
    const A along = block_sum(products, partial) * scale * scale / static_cast<A>(args.hidden);
    if (threadIdx.x == 0) args.scales[row] = scale;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      const V v = x[i];
      const V g = grad_y[i];
      const V w = weight[i];
      V s = {};
      if (grad_sum != nullptr) s = grad_sum[i];
      V result;
      for (int j = 0; j < kWidth; ++j) {
        A gradient = scale * (widen(g.at[j]) * widen(w.at[j]) - widen(v.at[j]) * along);
        if (grad_sum != nullptr) gradient += widen(s.at[j]);
        result.at[j] = narrow<T>(gradient);
      }
      grad_x[i] = result;
    }
  }
}

constexpr int kColumns = 32;  // threads along a row
constexpr int kRowLanes = 8;  // threads along the rows

// A block sums kNormGradientRows rows of kColumns * kWidth columns of grad_y * round(x * scale).
template <typename T, int kWidth>
__global__ void weight_gradient_kernel(const RmsNormBackward<T, Accumulator<T>> args) {
  using A = Accumulator<T>;
  using V = Vector<T, kWidth>;
  __shared__ A lanes[kRowLanes][kColumns][kWidth];
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x) * kWidth;
  const int64_t chunks = (args.rows + kNormGradientRows - 1) / kNormGradientRows;
  for (int64_t chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    const int64_t first = chunk * kNormGradientRows;
    const int64_t end = min(first + kNormGradientRows, args.rows);
    A sums[kWidth] = {};
    if (column < args.hidden) {
      for (int64_t row = first + threadIdx.y; row < end; row += kRowLanes) {
        const A scale = args.scales[row];
        const V v = *reinterpret_cast<const V*>(args.x + row * args.hidden + column);
        const V g = *reinterpret_cast<const V*>(args.grad_y + row * args.hidden + column);
        for (int j = 0; j < kWidth; ++j) {
          sums[j] += widen(g.at[j]) * rounded<T>(widen(v.at[j]) * scale);
        }
      }
    }
    for (int j = 0; j < kWidth; ++j) lanes[threadIdx.y][threadIdx.x][j] = sums[j];
    __syncthreads();
    if (threadIdx.y == 0 && column < args.hidden) {
      for (int j = 0; j < kWidth; ++j) {
        A total = 0;
        for (int lane = 0; lane < kRowLanes; ++lane) total += lanes[lane][threadIdx.x][j];
        args.grad_weight[chunk * args.hidden + column + j] = total;
      }
    }
    __syncthreads();
  }
}

template <typename T, int kWidth>
void launch(const RmsNorm<T>& args, cudaStream_t stream) {
  const unsigned threads = threads_for(args.hidden / kWidth);
  const unsigned blocks = blocks_for(args.rows);
  if (args.residual == nullptr) {
    rms_norm_kernel<T, kWidth, false><<<blocks, threads, 0, stream>>>(args);
  } else {
    rms_norm_kernel<T, kWidth, true><<<blocks, threads, 0, stream>>>(args);
  }
}

template <typename T, int kWidth>
void launch(const RmsNormBackward<T, Accumulator<T>>& args, cudaStream_t stream) {
  rms_norm_backward_kernel<T, kWidth>
      <<<blocks_for(args.rows), threads_for(args.hidden / kWidth), 0, stream>>>(args);
  const dim3 blocks(blocks_for(ceil_div(args.hidden, kColumns * kWidth)),
                    blocks_for(ceil_div(args.rows, kNormGradientRows), kMostBlocksAside));
  weight_gradient_kernel<T, kWidth><<<blocks, dim3(kColumns, kRowLanes), 0, stream>>>(args);
}

}  // namespace

template <typename T>
cudaError_t rms_norm(const RmsNorm<T>& args, cudaStream_t stream) {
  if (args.rows == 0 || args.hidden == 0) return cudaSuccess;
  const int64_t n = args.hidden;
  const bool aligned =
      is_aligned(args.x, n, args.x_stride) && is_aligned(args.weight, n) && is_aligned(args.y, n) &&
      (args.residual == nullptr ||
       (is_aligned(args.residual, n, args.residual_stride) && is_aligned(args.sum, n)));
  if (aligned) {
    launch<T, kFullWidth<T>>(args, stream);
  } else {
    launch<T, 1>(args, stream);
  }
  return cudaGetLastError();
}

template <typename T, typename Accumulator>
cudaError_t rms_norm_backward(const RmsNormBackward<T, Accumulator>& args, cudaStream_t stream) {
  if (args.rows == 0 || args.hidden == 0) return cudaSuccess;
  const int64_t n = args.hidden;
  const bool aligned = is_aligned(args.grad_y, n) && is_aligned(args.x, n) &&
                       is_aligned(args.weight, n) && is_aligned(args.grad_x, n) &&
                       (args.grad_sum == nullptr || is_aligned(args.grad_sum, n));
  if (aligned) {
    launch<T, kFullWidth<T>>(args, stream);
  } else {
    launch<T, 1>(args, stream);
  }
  return cudaGetLastError();
}

#define MISTRAL_EXT_INSTANTIATE(T)                                \
  template cudaError_t rms_norm(const RmsNorm<T>&, cudaStream_t); \
  template cudaError_t rms_norm_backward(const RmsNormBackward<T, Accumulator<T>>&, cudaStream_t);
MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(double)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)

}  // namespace mistral_ext::kernels::cuda
