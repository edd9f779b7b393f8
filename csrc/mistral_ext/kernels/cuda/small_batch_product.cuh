#pragma once

// The arithmetic of linear_small_batch.
//
// A tile of 16 rows of x is A and 8 rows of W are B on the matrix units. Lane (g, t) = 4g + t of
// warp w holds the pieces 4 (w + 8 j) + t of rows g and g + 8 of every tile, j counting the steps,
// and meets the same pieces of row g of W: which of a step's 32 elements are which columns of A and
// rows of B makes no difference. Each warp so has sums over an eighth of the block's part of a row.

#include "mistral_ext/kernels/cuda/cluster.cuh"
#include "mistral_ext/kernels/cuda/few_rows_product.cuh"
#include "mistral_ext/kernels/cuda/linear_small_batch_plan.h"

namespace mistral_ext::kernels::cuda {

#if __CUDA_ARCH__ >= 900
// kIsWhole: every thread has kSteps pieces of a row.
template <typename T, int kTiles, int kSteps, bool kIsWhole>
class SmallBatchProduct {
 public:
  static constexpr int kRows = kTiles * kTileRows;
  static constexpr int kUnitSums = kRows * kUnitRows;
  static constexpr int kSetUnits = kBatchSetSums / kUnitSums;

  // squares: shared memory for kRows * kProductWarps floats of every block of the cluster;
  // `squared` is the barrier that expects them.
  __device__ SmallBatchProduct(const LinearFewRows<T>& args,
                               const SmallBatchPlan& plan,
                               int rank,
                               float* squares,
                               CopyBarrier* squared)
      : args_(args),
        plan_(plan),
        rank_(rank),
        squares_(squares),
        squared_(squared),
        lane_(threadIdx.x % kWarp),
        warp_(threadIdx.x / kWarp) {
    const int step = rank_ * plan_.steps;
    first_ = step * kStepPieces + warp_ * 4 + lane_ % 4;
    const int end = min(plan_.pieces, (step + plan_.steps) * kStepPieces);
    mine_ = max(0, (end - first_ + kStepPieces - 1) / kStepPieces);
    if (args.norm_weight == nullptr) return;
#pragma unroll
    for (int j = 0; j < kSteps; ++j) norm_[j] = load_norm(j);
  }

  __device__ void load_x() {
    uint4 x[kHalves][kSteps];
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int j = 0; j < kSteps; ++j) x[half][j] = load_piece(half, j);
    }
    if (args_.norm_weight != nullptr) {
      find_scales(x);
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        if (!has_half(half)) continue;
#pragma unroll
        for (int j = 0; j < kSteps; ++j) {
          x[half][j] = normalised(x[half][j], norm_[j], scale_[half]);
        }
      }
    }
    const auto zero = static_cast<uint32_t>(plan_.zero);
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4& low = x[2 * tile][j];
        const uint4& high = x[2 * tile + 1][j];
        x_[j][tile][0] = in_place({low.x, high.x, low.y, high.y}, zero);
        x_[j][tile][1] = in_place({low.z, high.z, low.w, high.w}, zero);
      }
    }
  }

  // Adds up a unit: `unit` has this thread's first piece. release() is called once it has
  // been read. to: shared memory for the unit's sums, a float4 of every tile and lane.
  template <typename Release>
  __device__ void multiply(const unsigned char* unit, float4* to, Release&& release) const {
    constexpr int kChains = kTiles == 1 ? 4 : 2;  // sums that do not wait for one another
    constexpr int kAhead = kSteps < 8 ? kSteps : (kSteps % 8 == 0 ? 8 : kSteps / 2);
    const auto* pieces = reinterpret_cast<const uint4*>(unit);
    float c[kTiles][kChains][4] = {};
#pragma unroll
    for (int first = 0; first < kSteps; first += kAhead) {
      uint4 w[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int j = first + i;
        w[i] = has_piece(j) ? pieces[j * kStepPieces] : uint4{};
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const auto& x = x_[first + i][tile];
          multiply_add<T>(c[tile][2 * i % kChains], x[0], w[i].x, w[i].y);
          multiply_add<T>(c[tile][(2 * i + 1) % kChains], x[1], w[i].z, w[i].w);
        }
      }
    }
    release();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float all[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        all[i] = c[tile][0][i] + c[tile][1][i];
        if constexpr (kChains == 4) all[i] += c[tile][2][i] + c[tile][3][i];
      }
      to[tile * kWarp + lane_] = make_float4(all[0], all[1], all[2], all[3]);
    }
  }

  // What sum i of a unit is of, i being even: row_of(i) of W, and the next, with row m_of(i) of x.
  __device__ static int row_of(int i) { return i / 4 % 4 * 2; }
  __device__ static int m_of(int i) {
    return i / (4 * kWarp) * kTileRows + i / 16 % 8 + i / 2 % 2 * (kTileRows / 2);
  }

  // Of a unit, as far as its bytes in a slot go.
  __device__ int first_byte() const {
    return lane_ / 4 * plan_.pitch + (warp_ * 4 + lane_ % 4) * kPieceBytes;
  }

  // Of the threads that multiply, whatever others the block has.
  __device__ static void sync() {
    asm volatile("bar.sync 1, %0;" ::"n"(kProductThreads) : "memory");
  }

 private:
  static constexpr int kHalves = 2 * kTiles;  // of 8 rows

  __device__ bool has_piece(int j) const {
    if constexpr (kIsWhole) return true;
    return j < mine_;
  }

  __device__ int m_of_half(int half) const { return half * (kTileRows / 2) + lane_ / 4; }
  __device__ bool has_half(int half) const {
    return half == 0 || args_.rows > half * (kTileRows / 2);
  }

  __device__ uint4 load_piece(int half, int j) const {
    const int m = m_of_half(half);
    return load_fresh(
        args_.x + m * args_.x_stride + static_cast<int64_t>(first_ + j * kStepPieces) * 8,
        m < args_.rows && has_piece(j));
  }

  __device__ uint4 load_norm(int j) const {
    if (!has_piece(j)) return {};
    return load_constant(args_.norm_weight + (first_ + j * kStepPieces) * 8);
  }

  __device__ static float squares_of(const uint4& piece) {
    float sum = 0.0f;
    for (const uint32_t pair : {piece.x, piece.y, piece.z, piece.w}) {
      const float2 x = widen_pair<T>(pair);
      sum = fmaf(x.x, x.x, sum);
      sum = fmaf(x.y, x.y, sum);
    }
    return sum;
  }

  // Of this thread's rows. The order is that of the pieces.
  __device__ void find_scales(const uint4 (&x)[kHalves][kSteps]) {
    float sums[kHalves] = {};
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      if (!has_half(half)) continue;
#pragma unroll
      for (int j = 0; j < kSteps; ++j) sums[half] += squares_of(x[half][j]);
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      float sum = sums[half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      // Of the four lanes that have it, each tells some blocks.
      float* mine = squares_ + (rank_ * kRows + m_of_half(half)) * kProductWarps + warp_;
      if (plan_.cluster == 1) {
        if (lane_ % 4 == 0) *mine = sum;
      } else {
        for (int rank = lane_ % 4; rank < plan_.cluster; rank += 4) {
          store_there(address_in(mine, rank), sum, address_in(squared_, rank));
        }
      }
    }
    if (plan_.cluster == 1) {
      sync();
    } else {
      squared_->wait(0);
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      float sum = 0.0f;
      for (int rank = 0; rank < plan_.cluster; ++rank) {
        const auto* of_row = reinterpret_cast<const float4*>(
            squares_ + (rank * kRows + m_of_half(half)) * kProductWarps);
        const float4 a = of_row[0];
        const float4 b = of_row[1];
        sum += ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
      }
      scale_[half] = rsqrtf(sum / static_cast<float>(args_.in_features) + args_.eps);
    }
  }

  // The same, by instructions whose result the compiler does not know: or it would gather the four
  // registers again for every product.
  __device__ static uint4 in_place(const uint4& v, uint32_t zero) {
    return {v.x ^ zero, v.y ^ zero, v.z ^ zero, v.w ^ zero};
  }

  __device__ uint4 normalised(const uint4& piece, const uint4& weight, float scale) const {
    // Not before the scale is known: what is widened early, or kept from the sum of squares, takes
    // twice the registers.
    const uint32_t zero = __float_as_uint(scale) & static_cast<uint32_t>(plan_.zero);
    const uint4 x = in_place(piece, zero);
    const auto pair = [&](uint32_t at, uint32_t by) {
      const float2 wide = widen_pair<T>(at);
      return multiply_pairs<T>(narrow_pair<T>(make_float2(wide.x * scale, wide.y * scale)), by);
    };
    return {pair(x.x, weight.x), pair(x.y, weight.y), pair(x.z, weight.z), pair(x.w, weight.w)};
  }

  const LinearFewRows<T>& args_;
  const SmallBatchPlan& plan_;
  int rank_;
  float* squares_;
  CopyBarrier* squared_;
  int lane_;
  int warp_;
  int first_;                   // this thread's pieces are first_, first_ + kStepPieces, ...
  int mine_;                    // as many
  uint4 x_[kSteps][kTiles][2];  // as rows g and g + 8 of A, 16 columns each
  uint4 norm_[kSteps];
  float scale_[kHalves];
};
#endif

}  // namespace mistral_ext::kernels::cuda
