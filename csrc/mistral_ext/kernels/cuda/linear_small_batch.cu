#include "mistral_ext/kernels/cuda/cluster.cuh"
#include "mistral_ext/kernels/cuda/dependent_launch.cuh"
#include "mistral_ext/kernels/cuda/linear_small_batch.h"
#include "mistral_ext/kernels/cuda/linear_small_batch_plan.h"
#include "mistral_ext/kernels/cuda/registers.cuh"
#include "mistral_ext/kernels/cuda/small_batch_product.cuh"
#include "mistral_ext/kernels/cuda/small_batch_ring.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

// Beside the threads that multiply, one of which copies: as many as hand registers over.
constexpr int kCopyThreads = 4 * kWarp;

#if __CUDA_ARCH__ >= 900
// What of a set a thread finishes: the sums 2 * threadIdx.x, with kSwiGlu of those of the gates,
// and the one after it.
template <typename T, typename Product>
class SetEnd {
 public:
  __device__ explicit SetEnd(const SmallBatchWork<T>& work) : work_(&work) {}

  // The set of the units [first, last).
  __device__ void turn_to(int cluster, int first, int last) {
    const LinearFewRows<T>& args = work_->args;
    const int pair = 2 * static_cast<int>(threadIdx.x);
    const int of_unit = pair % Product::kUnitSums;
    sum_ = is_pair() ? 2 * pair - of_unit : pair;
    const int unit = first + sum_ / Product::kUnitSums;
    m_ = Product::m_of(of_unit);
    const int row = Product::row_of(of_unit);
    if (unit >= last || m_ >= args.rows) return;
    const RowUnit at = unit_at(*work_, cluster, unit);
    matrix_ = at.matrix;
    row_ = at.row + row;
    rows_ = min(at.rows - row, 2);
    if (args.epilogue != LinearEpilogue::kAdd) return;
    const auto* from =
        reinterpret_cast<const unsigned short*>(args.residual + m_ * args.residual_stride + row_);
    // Another kernel of the step wrote it: not through the cache of constants.
    if (rows_ > 0) residual_.x = widen(T{__ldcg(from)});
    if (rows_ > 1) residual_.y = widen(T{__ldcg(from + 1)});
  }

  // total(i): the sums i and i + 1.
  template <typename Total>
  __device__ void store(Total&& total) const {
    if (rows_ <= 0) return;
    float2 value = total(sum_);
    if (is_pair()) {
      const float2 up = total(sum_ + Product::kUnitSums);
      value.x = value.x / (1.0f + __expf(-value.x)) * up.x;
      value.y = value.y / (1.0f + __expf(-value.y)) * up.y;
    } else {
      value.x += residual_.x;
      value.y += residual_.y;
    }
    const LinearMatrix<T>& matrix = work_->args.matrices[matrix_];
    T* to = matrix.y + m_ * matrix.y_stride + row_;
    to[0] = narrow<T>(value.x);
    if (rows_ > 1) to[1] = narrow<T>(value.y);
  }

 private:
  __device__ bool is_pair() const { return work_->plan.units_a_group == 2; }

  const SmallBatchWork<T>* work_;
  int sum_ = 0;
  int m_ = 0;
  int matrix_ = 0;
  int rows_ = 0;
  int64_t row_ = 0;
  float2 residual_ = {};
};

// The threads that multiply.
template <typename Product, typename T>
__device__ void multiply_units(const SmallBatchWork<T>& work,
                               const SmallBatchShared& shared,
                               int cluster,
                               int rank) {
  const SmallBatchPlan& plan = work.plan;
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  Product product(work.args, plan, rank, shared.squares, shared.squared);
  if (plan.cluster > 1) wait_for_cluster();
  wait_for_previous();
  product.load_x();

  const unsigned char* const ring = shared.ring + product.first_byte();
  const int units = count_units(work, cluster);
  int ring_unit = 0;
  int parity = 0;
  int owner = 0;          // the block that finishes the set
  bool is_owing = false;  // this block has yet to finish the last set that is its own
  SetEnd<T, Product> owed(work);
  int received_parity = 0;
  const auto finish_owed = [&] {
    shared.received->wait(received_parity);
    received_parity ^= 1;
    owed.store([&](int i) {
      float2 all = {};
      for (int r = 0; r < plan.cluster; ++r) {
        const float2 x = *reinterpret_cast<const float2*>(shared.others + r * kBatchSetSums + i);
        all.x += x.x;
        all.y += x.y;
      }
      return all;
    });
  };
  int buffer = 0;  // of sums: one is added up in while the other one is still read
  for (int first = 0; first < units; first += Product::kSetUnits) {
    const int last = min(first + Product::kSetUnits, units);
    SetEnd<T, Product> end(work);
    if (rank == owner) end.turn_to(cluster, first, last);
    float* const sums = shared.sums + buffer * kProductWarps * kBatchSetSums;
    for (int unit = first; unit < last; ++unit) {
      for (int slot = 0; slot < plan.unit_slots; ++slot) {
        shared.full[ring_unit * plan.unit_slots + slot].wait(parity);
      }
      float* to = sums + warp * kBatchSetSums + (unit - first) * Product::kUnitSums;
      // Of rows that are not there what the ring had remains, and what that gives is not stored.
      product.multiply(ring + ring_unit * plan.unit_bytes, reinterpret_cast<float4*>(to), [&] {
        // The warp has what it loaded, and by its arrival is ahead of the next copy there.
        __syncwarp();
        if (lane == 0) shared.empty[ring_unit].arrive();
      });
      if (++ring_unit == plan.ring_units) {
        ring_unit = 0;
        parity ^= 1;
      }
    }
    Product::sync();
    const auto of_block = [&](int i) {
      float2 x[kProductWarps];
#pragma unroll
      for (int w = 0; w < kProductWarps; ++w) {
        x[w] = *reinterpret_cast<const float2*>(sums + w * kBatchSetSums + i);
      }
      return make_float2(
          ((x[0].x + x[1].x) + (x[2].x + x[3].x)) + ((x[4].x + x[5].x) + (x[6].x + x[7].x)),
          ((x[0].y + x[1].y) + (x[2].y + x[3].y)) + ((x[4].y + x[5].y) + (x[6].y + x[7].y)));
    };
    if (plan.cluster == 1) {
      end.store(of_block);
    } else {
      if (is_owing) finish_owed();
      // The owner's `others` are free: since the last set of the owner, this block has finished one
      // of its own, with sums that the owner sent after it had finished that set.
      const int i = 2 * static_cast<int>(threadIdx.x);
      is_owing = rank == owner;
      if (is_owing && threadIdx.x == 0) {
        shared.received->arrive_and_expect(plan.cluster * kBatchSetSums * 4);
      }
      store_there(address_in(shared.others + rank * kBatchSetSums + i, owner),
                  of_block(i),
                  address_in(shared.received, owner));
      if (is_owing) owed = end;
      if (++owner == plan.cluster) owner = 0;
    }
    buffer ^= 1;
  }
  if (is_owing) finish_owed();
}
#endif

// Weights come through a ring in shared memory that one thread fills by bulk copies.
template <typename T, int kTiles, int kSteps, bool kIsWhole>
__global__ void __launch_bounds__(kProductThreads + kCopyThreads, 1)
    small_batch_kernel(const __grid_constant__ SmallBatchWork<T> work) {
#if __CUDA_ARCH__ >= 900
  using Product = SmallBatchProduct<T, kTiles, kSteps, kIsWhole>;
  extern __shared__ __align__(128) unsigned char bytes[];
  let_next_start();
  const SmallBatchPlan& plan = work.plan;
  const SmallBatchShared shared(bytes, plan, kTiles);
  const int rank = plan.cluster > 1 ? rank_in_cluster() : 0;
  const int cluster = static_cast<int>(blockIdx.x) / plan.cluster;
  if (threadIdx.x == kProductThreads) shared.init(plan, kTiles);
  __syncthreads();
  if (plan.cluster > 1) arrive_at_cluster();
  if (threadIdx.x >= kProductThreads) {
    give_registers<40>();
    if (threadIdx.x == kProductThreads) fill_ring(work, shared, cluster, rank);
    return;
  }
  take_registers<232>();
  multiply_units<Product>(work, shared, cluster, rank);
#endif
}

template <typename T, int kTiles, int kSteps, bool kIsWhole>
cudaError_t launch_kernel(SmallBatchWork<T>& work, const StepLaunch& launch) {
  const auto kernel = small_batch_kernel<T, kTiles, kSteps, kIsWhole>;
  constexpr int kThreads = kProductThreads + kCopyThreads;
  auto error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBatchShared);
  const int cluster = work.plan.cluster;
  int most_clusters = launch.multiprocessors / cluster;
  if (cluster > 1 && error == cudaSuccess) {
    // As many as there is room for at once: where a processing cluster of the GPU has a number of
    // multiprocessors that `cluster` does not divide, some of them stay idle.
    const StepConfig config(
        launch, cluster, dim3(launch.multiprocessors / cluster * cluster), kThreads, kBatchShared);
    int room = 0;
    error = cudaOccupancyMaxActiveClusters(&room, kernel, config.get());
    if (room > 0) most_clusters = std::min(most_clusters, room);
  }
  if (error != cudaSuccess) return error;
  plan_small_batch(work.args, kTiles, most_clusters, launch.bytes_in_flight, &work.plan);
  return launch_clusters(
      launch, kernel, cluster, work.plan.clusters * cluster, kThreads, kBatchShared, work);
}

template <typename T, int kTiles>
cudaError_t launch_tiles(const LinearFewRows<T>& args, const StepLaunch& launch) {
  SmallBatchWork<T> work{args, divide_small_batch(args, kTiles)};
  const SmallBatchPlan& plan = work.plan;
  constexpr int kMost = kHeldSteps / kTiles;
  if (plan.pieces == plan.cluster * plan.steps * kStepPieces) {
    // As of 4096 and of 14336 features, between one to eight blocks.
    if (plan.steps == kMost) return launch_kernel<T, kTiles, kMost, true>(work, launch);
    if (plan.steps == kMost / 2) return launch_kernel<T, kTiles, kMost / 2, true>(work, launch);
    if constexpr (kMost > 14) {
      if (plan.steps == 14) return launch_kernel<T, kTiles, 14, true>(work, launch);
    }
    if (plan.steps == 7) return launch_kernel<T, kTiles, 7, true>(work, launch);
  }
  if (plan.steps <= kMost / 4) return launch_kernel<T, kTiles, kMost / 4, false>(work, launch);
  return launch_kernel<T, kTiles, kMost, false>(work, launch);
}

// Calls multiply for up to `most` rows at a time.
template <typename T, typename Multiply>
cudaError_t in_parts(const LinearFewRows<T>& args, int64_t most, Multiply&& multiply) {
  for (int64_t first = 0; first < args.rows; first += most) {
    LinearFewRows<T> part = args;
    part.rows = std::min(most, args.rows - first);
    part.x += first * args.x_stride;
    if (part.residual != nullptr) part.residual += first * args.residual_stride;
    for (int i = 0; i < args.count; ++i) {
      if (part.matrices[i].y != nullptr) part.matrices[i].y += first * args.matrices[i].y_stride;
    }
    if (const auto error = multiply(part); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

bool is_small_batch(int64_t rows, const StepLaunch& launch) {
  return launch.has_bulk_copies && rows > kFewRows / 2 && rows <= kSmallBatch;
}

template <typename T>
cudaError_t linear_small_batch(const LinearFewRows<T>& args, const StepLaunch& launch) {
  if (args.in_features > kFewRowsMostFeatures || args.rows > kSmallBatch) {
    return cudaErrorInvalidValue;
  }
  if (!launch.has_bulk_copies) return cudaErrorNotSupported;
  int64_t outputs = 0;
  for (int i = 0; i < args.count; ++i) outputs += args.matrices[i].out_features;
  if (args.rows * outputs == 0) return cudaSuccess;
  if (args.rows > kTileRows && args.in_features <= small_batch_features(2)) {
    return launch_tiles<T, 2>(args, launch);
  }
  // What is too long for the registers of a cluster reads the weights more than once.
  const bool is_few = args.in_features > small_batch_features(1);
  return in_parts(args, is_few ? kFewRows : kTileRows, [&](const LinearFewRows<T>& part) {
    return is_few ? linear_few_rows(part, launch) : launch_tiles<T, 1>(part, launch);
  });
}

template cudaError_t linear_small_batch(const LinearFewRows<bfloat16>&, const StepLaunch&);
template cudaError_t linear_small_batch(const LinearFewRows<float16>&, const StepLaunch&);

}  // namespace mistral_ext::kernels::cuda
