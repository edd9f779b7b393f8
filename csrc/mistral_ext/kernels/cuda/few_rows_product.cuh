#pragma once

// The arithmetic of linear_few_rows, the same wherever the weights come from.
//
// Thread t of kProductThreads holds the pieces t, t + kProductThreads, ... of every row of x and
// meets the same pieces of each row of W. Their dot products are the matrix units' work: lane
// (g, t) = 4g + t of a warp gives its piece of x as row g of A and its piece of W as column g of B,
// so the diagonal of A B, summed over the pieces, is what the four lanes of each g have in common;
// the rest of it has no meaning. A second row of x is rows 8 to 15 of A.

#include "mistral_ext/kernels/cuda/block_sum.cuh"
#include "mistral_ext/kernels/cuda/linear_few_rows_plan.h"
#include "mistral_ext/kernels/cuda/matrix_units.cuh"
#include "mistral_ext/kernels/cuda/vector.cuh"

namespace mistral_ext::kernels::cuda {

// What other kernels of the step have written: from L2, after wait_for_previous. 0 where it is not
// there, without a branch.
__device__ inline uint4 load_fresh(const void* p, bool is_there) {
  uint4 v;
  asm volatile(
      "{\n"
      ".reg .pred there;\n"
      "setp.ne.b32 there, %5, 0;\n"
      "mov.b32 %0, 0;\n"
      "mov.b32 %1, 0;\n"
      "mov.b32 %2, 0;\n"
      "mov.b32 %3, 0;\n"
      "@there ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(p), "r"(static_cast<int>(is_there))
      : "memory");
  return v;
}

// What no kernel of the step writes.
__device__ inline uint4 load_constant(const void* p) { return __ldg(static_cast<const uint4*>(p)); }

template <typename T>
__device__ inline Vector<T, 8> elements_of(const uint4& piece) {
  return *reinterpret_cast<const Vector<T, 8>*>(&piece);
}

// The sums over the warp of kCount values a lane; sum i is returned in the lanes l with
// l * kCount / 32 == i. kCount is a power of 2 up to 32.
template <int kCount, int kOffset = kWarp / 2>
__device__ inline float warp_sums(const float (&values)[kCount], int lane) {
  if constexpr (kOffset == 0) {
    return values[0];
  } else if constexpr (kCount == 1) {
    const float sum[1] = {values[0] + __shfl_xor_sync(0xffffffffu, values[0], kOffset)};
    return warp_sums<1, kOffset / 2>(sum, lane);
  } else {
    const bool is_upper = (lane & kOffset) != 0;
    float half[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const float keep = is_upper ? values[i + kCount / 2] : values[i];
      const float give = is_upper ? values[i] : values[i + kCount / 2];
      half[i] = keep + __shfl_xor_sync(0xffffffffu, give, kOffset);
    }
    return warp_sums<kCount / 2, kOffset / 2>(half, lane);
  }
}

template <typename T, int kRows, int kPieces>
class FewRowsProduct {
 public:
  using Shape = FewRowsShape<kRows, kPieces>;
  // What a thread has of the tasks: task r * kParts + p is part p of row r.
  using Tasks = uint4[Shape::kTasks][Shape::kPartLoads];

  // sums: shared memory for kSetSums * kProductWarps floats. squares: for kRows * kProductWarps.
  __device__ FewRowsProduct(const LinearFewRows<T>& args,
                            const FewRowsPlan& plan,
                            float* sums,
                            float* squares)
      : args_(args),
        plan_(plan),
        sums_(sums),
        squares_(squares),
        lane_(threadIdx.x % kWarp),
        warp_(threadIdx.x / kWarp) {
    if (args.norm_weight == nullptr) return;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) norm_[j] = load_norm(j * kProductThreads + threadIdx.x);
  }

  // Holds the pieces of a pass. Pass 0 comes first.
  __device__ void load_x(int pass) {
    uint4 x[kRows][kPieces];
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) x[m][j] = load_piece(m, piece_of(pass, j));
    }
    if (args_.norm_weight != nullptr) {
      if (pass == 0) find_scales(x);
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        const uint4 weight = pass == 0 ? norm_[j] : load_norm(piece_of(pass, j));
#pragma unroll
        for (int m = 0; m < kRows; ++m) normalise(x[m][j], weight, scale_[m]);
      }
    }
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        const uint4 first = x[2 * pair][j];
        uint4 second = {};
        if constexpr (kRows > 1) second = x[2 * pair + 1][j];
        x_[pair][j][0] = in_place({first.x, second.x, first.y, second.y});
        x_[pair][j][1] = in_place({first.z, second.z, first.w, second.w});
      }
    }
  }

  // Adds up one unit's tasks of a pass. w is 0 beyond the end of a row.
  __device__ void multiply(const Tasks& w, int pass, int first_sum) {
    const int group = lane_ / 4;
    const bool is_diagonal = group / 2 == lane_ % 4;
    const bool is_odd = group % 2 == 1;
    constexpr int kCount = Shape::kTasks * kRows;
    float c[Shape::kTasks][kPairs][4] = {};
#pragma unroll
    for (int j = 0; j < Shape::kPartLoads; ++j) {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
#pragma unroll
        for (int task = 0; task < Shape::kTasks; ++task) {
          const int held = task % Shape::kParts * Shape::kPartLoads + j;
          const uint4& v = w[task][j];
          multiply_add<T>(c[task][pair], x_[pair][held][0], v.x, v.y);
          multiply_add<T>(c[task][pair], x_[pair][held][1], v.z, v.w);
        }
      }
    }
    float values[kCount];
#pragma unroll
    for (int task = 0; task < Shape::kTasks; ++task) {
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        const float* held = c[task][m / 2] + m % 2 * 2;
        values[task * kRows + m] = is_diagonal ? (is_odd ? held[1] : held[0]) : 0.0f;
      }
    }
    constexpr int kLanes = kWarp / kCount;  // that have the same sum
    const float sum = warp_sums<kCount>(values, lane_);
    if (lane_ % kLanes != 0) return;
    const int task = lane_ / kLanes / kRows;
    const int m = lane_ / kLanes % kRows;
    const int part = pass * Shape::kParts + task % Shape::kParts;
    if (Shape::kParts > 1 && part >= plan_.parts) return;
    const int row = task / Shape::kParts;
    sums_[(first_sum + (row * plan_.parts + part) * kRows + m) * kProductWarps + warp_] = sum;
  }

  // Row `row` of a unit times row m of x, once all warps have added up all of its parts.
  __device__ float total(int first_sum, int row, int m) const {
    float all = 0.0f;
    for (int part = 0; part < plan_.parts; ++part) {
      const int sum = first_sum + (row * plan_.parts + part) * kRows + m;
      const auto* partial = reinterpret_cast<const float4*>(sums_ + sum * kProductWarps);
      const float4 a = partial[0];
      const float4 b = partial[1];
      all += ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
    }
    return all;
  }

  // Of the threads that multiply, whatever others the block has.
  __device__ static void sync() {
    asm volatile("bar.sync 1, %0;" ::"n"(kProductThreads) : "memory");
  }

 private:
  __device__ static int piece_of(int pass, int j) {
    return pass * Shape::kPassPieces + j * kProductThreads + static_cast<int>(threadIdx.x);
  }

  __device__ uint4 load_piece(int m, int piece) const {
    return load_fresh(args_.x + m * args_.x_stride + static_cast<int64_t>(piece) * 8,
                      m < args_.rows && piece < plan_.pieces);
  }

  __device__ uint4 load_norm(int piece) const {
    return piece < plan_.pieces ? load_constant(args_.norm_weight + piece * 8) : uint4{};
  }

  __device__ static float squares_of(const uint4& piece) {
    const auto x = elements_of<T>(piece);
    float sum = 0.0f;
    for (int i = 0; i < 8; ++i) sum += widen(x.at[i]) * widen(x.at[i]);
    return sum;
  }

  // Of every row, with its first pieces held. The order is that of the pieces.
  __device__ void find_scales(const uint4 (&x)[kRows][kPieces]) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < kPieces; ++j) sum += squares_of(x[m][j]);
      for (int piece = piece_of(1, 0); piece < plan_.pieces; piece += kProductThreads) {
        sum += squares_of(load_piece(m, piece));
      }
      sum = warp_sum(sum);
      if (lane_ == 0) squares_[m * kProductWarps + warp_] = sum;
    }
    sync();
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      float sum = 0.0f;
      for (int i = 0; i < kProductWarps; ++i) sum += squares_[m * kProductWarps + i];
      scale_[m] = rsqrtf(sum / static_cast<float>(args_.in_features) + args_.eps);
    }
  }

  // The same, by instructions whose result the compiler does not know: or it would gather the four
  // registers again for every product. With one row, half of which are 0, it may: they are scarce.
  __device__ uint4 in_place(const uint4& v) const {
    if constexpr (kRows == 1) return v;
    const auto zero = static_cast<uint32_t>(plan_.zero);
    return {v.x ^ zero, v.y ^ zero, v.z ^ zero, v.w ^ zero};
  }

  __device__ static void normalise(uint4& piece, const uint4& weight, float scale) {
    auto x = elements_of<T>(piece);
    const auto w = elements_of<T>(weight);
    for (int i = 0; i < 8; ++i) {
      x.at[i] = narrow<T>(rounded<T>(widen(x.at[i]) * scale) * widen(w.at[i]));
    }
    piece = *reinterpret_cast<const uint4*>(&x);
  }

  static constexpr int kPairs = (kRows + 1) / 2;

  const LinearFewRows<T>& args_;
  const FewRowsPlan& plan_;
  float* sums_;
  float* squares_;
  int lane_;
  int warp_;
  uint4 x_[kPairs][kPieces][2];  // as rows m and m + 8 of A, 16 columns each
  uint4 norm_[kPieces];
  float scale_[kRows];
};

}  // namespace mistral_ext::kernels::cuda
