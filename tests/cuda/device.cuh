#pragma once

// What the stand-alone programs that try the CUDA kernels share: memory, random numbers, rounding.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "mistral_ext/kernels/types.h"

namespace mistral_ext::trial {

inline void check(cudaError_t error, const char* what, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::printf("%s:%d: %s: %s\n", file, line, what, cudaGetErrorString(error));
  std::exit(1);
}
#define CUDA_CHECK(call) ::mistral_ext::trial::check((call), #call, __FILE__, __LINE__)

// How far apart the numbers from 1 on are.
template <typename T>
inline constexpr double kEpsilon = 0x1p-7;
template <>
inline constexpr double kEpsilon<kernels::float16> = 0x1p-10;

__host__ __device__ inline double to_double(kernels::bfloat16 x) {
  return __bfloat162float(__ushort_as_bfloat16(x.bits));
}
__host__ __device__ inline double to_double(kernels::float16 x) {
  return __half2float(__ushort_as_half(x.bits));
}

template <typename T>
__host__ __device__ T from_double(double x);
template <>
__host__ __device__ inline kernels::bfloat16 from_double(double x) {
  return {__bfloat16_as_ushort(__double2bfloat16(x))};
}
template <>
__host__ __device__ inline kernels::float16 from_double(double x) {
  return {__half_as_ushort(__double2half(x))};
}

// Device memory that the host can copy in and out.
template <typename T>
class Array {
 public:
  explicit Array(size_t size = 0, int byte = -1) : size_(size) {
    CUDA_CHECK(cudaMalloc(&data_, size * sizeof(T) + 1));
    if (byte >= 0) CUDA_CHECK(cudaMemset(data_, byte, size * sizeof(T)));
  }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    CUDA_CHECK(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Array(Array&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  Array& operator=(Array&&) = delete;
  ~Array() { cudaFree(data_); }

  T* data() const { return data_; }
  size_t size() const { return size_; }
  std::vector<T> host() const {
    std::vector<T> values(size_);
    CUDA_CHECK(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

template <typename T>
__global__ void fill_kernel(T* to, size_t size, float centre, float spread, uint64_t seed) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < size; i += step) {
    // SplitMix64
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    to[i] = from_double<T>(centre + spread * (static_cast<float>(z >> 40) * 0x1p-23f - 1.0f));
  }
}

// Uniform in centre +- spread.
template <typename T>
void fill(const Array<T>& to, float centre, float spread, uint64_t seed) {
  fill_kernel<<<1024, 256>>>(to.data(), to.size(), centre, spread, seed);
  CUDA_CHECK(cudaGetLastError());
  CUDA_CHECK(cudaDeviceSynchronize());
}

template <typename T>
Array<T> random(size_t size, float centre, float spread, uint64_t seed) {
  Array<T> made(size);
  fill(made, centre, spread, seed);
  return made;
}

// Random numbers on the device, and as doubles on the host.
template <typename T>
struct Tensor {
  Array<T> device;
  std::vector<double> host;

  Tensor(size_t size, float centre, float spread, uint64_t seed)
      : device(random<T>(size, centre, spread, seed)) {
    for (const T x : device.host()) host.push_back(to_double(x));
  }
};

template <typename T>
std::vector<double> rounded(std::vector<double> values) {
  for (double& x : values) x = to_double(from_double<T>(x));
  return values;
}

}  // namespace mistral_ext::trial
