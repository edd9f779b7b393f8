#include "mistral_ext/kernels/cuda/bulk_copy.cuh"
#include "mistral_ext/kernels/cuda/dependent_launch.cuh"
#include "mistral_ext/kernels/cuda/few_rows_product.cuh"
#include "mistral_ext/kernels/cuda/linear_few_rows.h"
#include "mistral_ext/kernels/cuda/linear_few_rows_plan.h"
#include "mistral_ext/kernels/cuda/registers.cuh"
#include "mistral_ext/kernels/cuda/row_units.cuh"

namespace mistral_ext::kernels::cuda {
namespace {

template <typename T>
struct Work {
  LinearFewRows<T> args;
  FewRowsPlan plan;
};

template <typename T>
__device__ int count_units(const Work<T>& work) {
  return count_row_units(work.plan, static_cast<int>(blockIdx.x), work.plan.blocks);
}

// This block's.
template <int kUnitRows, typename T>
__device__ RowUnit unit_at(const Work<T>& work, int index) {
  const int block = static_cast<int>(blockIdx.x);
  return row_unit_at<kUnitRows>(work.args, work.plan, block, work.plan.blocks, index);
}

// Output i of a set of units, with its value before the epilogue.
struct Output {
  int unit;  // of the set
  int row;   // of the unit
  int m;
};

template <typename Shape, int kRows>
__device__ Output output_at(int i, int units_a_group) {
  constexpr int kOutputs = Shape::kUnitRows * kRows;
  return {i / kOutputs * units_a_group, i % kOutputs / kRows, i % kRows};
}

template <typename Shape, int kRows, typename T>
__device__ float residual_of(const Work<T>& work, int first_unit, int i) {
  const LinearFewRows<T>& args = work.args;
  const Output output = output_at<Shape, kRows>(i, 1);
  const RowUnit unit = unit_at<Shape::kUnitRows>(work, first_unit + output.unit);
  if (output.row >= unit.rows || output.m >= args.rows) return 0.0f;
  // Another kernel of the step wrote it: not through the cache of constants.
  const auto* from = args.residual + output.m * args.residual_stride + unit.row + output.row;
  return widen(T{__ldcg(reinterpret_cast<const unsigned short*>(from))});
}

// Stores what the units [first, last) give.
template <typename Shape, int kRows, typename T, typename Product>
__device__ void finish_set(
    const Work<T>& work, const Product& product, int first, int last, float first_residual) {
  const LinearFewRows<T>& args = work.args;
  const FewRowsPlan& plan = work.plan;
  const int outputs = (last - first) / plan.units_a_group * Shape::kUnitRows * kRows;
  for (int i = threadIdx.x; i < outputs; i += kProductThreads) {
    const Output output = output_at<Shape, kRows>(i, plan.units_a_group);
    const RowUnit unit = unit_at<Shape::kUnitRows>(work, first + output.unit);
    if (output.row >= unit.rows || output.m >= args.rows) continue;
    const int sum = output.unit * plan.unit_sums;
    float value = product.total(sum, output.row, output.m);
    if (args.epilogue == LinearEpilogue::kSwiGlu) {
      const float up = product.total(sum + plan.unit_sums, output.row, output.m);
      value = value / (1.0f + __expf(-value)) * up;
    } else if (args.epilogue == LinearEpilogue::kAdd) {
      value += i < kProductThreads ? first_residual : residual_of<Shape, kRows>(work, first, i);
    }
    const LinearMatrix<T>& matrix = args.matrices[unit.matrix];
    matrix.y[output.m * matrix.y_stride + unit.row + output.row] = narrow<T>(value);
  }
}

// Calls load(unit, pass, tasks) for every unit of this block in every pass, in the order in which
// the weights are read, and multiplies and stores.
template <int kRows, typename T, typename Product, typename Load>
__device__ void for_each_unit(const Work<T>& work, Product& product, Load&& load) {
  using Shape = typename Product::Shape;
  const FewRowsPlan& plan = work.plan;
  const int units = count_units(work);
  const int passes = (plan.pieces + Shape::kPassPieces - 1) / Shape::kPassPieces;
  for (int first = 0; first < units; first += plan.set_units) {
    const int last = min(first + plan.set_units, units);
    float residual = 0.0f;
    if (work.args.epilogue == LinearEpilogue::kAdd &&
        threadIdx.x < (last - first) * Shape::kUnitRows * kRows) {
      residual = residual_of<Shape, kRows>(work, first, threadIdx.x);
    }
    for (int pass = 0; pass < passes; ++pass) {
      if (first == 0 || passes > 1) product.load_x(pass);
      for (int unit = first; unit < last; ++unit) {
        typename Product::Tasks w;
        load(unit, pass, w);
        product.multiply(w, pass, (unit - first) * plan.unit_sums);
      }
    }
    Product::sync();
    finish_set<Shape, kRows>(work, product, first, last, residual);
    if (last < units) Product::sync();
  }
}

#if __CUDA_ARCH__ >= 900
struct Ring {
  unsigned char* bytes;
  CopyBarrier* full;   // one a slot
  CopyBarrier* empty;  // one a unit
};

// One thread: copies the weights of all units into the ring.
template <typename Shape, typename T>
__device__ void fill_ring(const Work<T>& work, const Ring& ring) {
  const FewRowsPlan& plan = work.plan;
  const uint64_t policy = evict_first();
  const int units = count_units(work);
  const int passes = (plan.pieces + Shape::kPassPieces - 1) / Shape::kPassPieces;
  const int slots = plan.ring_units * plan.unit_slots;
  const int row_bytes = plan.pieces * kPieceBytes;
  const bool is_whole = Shape::kParts == 1 && passes == 1;
  int slot = 0;
  int ring_unit = 0;
  int parity = 1;
  int landed = 0;  // the oldest copy that may be on its way
  int landed_parity = 0;
  int on_their_way = 0;
  const auto copy = [&](const unsigned char* from, int bytes) {
    if (on_their_way == plan.slots_in_flight) {
      ring.full[landed].wait(landed_parity);
      if (++landed == slots) {
        landed = 0;
        landed_parity ^= 1;
      }
    } else {
      ++on_their_way;
    }
    if (bytes > 0) {
      ring.full[slot].arrive_and_expect(bytes);
      copy_bulk(ring.bytes + slot * plan.slot_bytes, from, bytes, ring.full + slot, policy);
    } else {
      ring.full[slot].arrive();
    }
    if (++slot == slots) slot = 0;
  };
  for (int first = 0; first < units; first += plan.set_units) {
    const int last = min(first + plan.set_units, units);
    for (int pass = 0; pass < passes; ++pass) {
      for (int index = first; index < last; ++index) {
        const RowUnit unit = unit_at<Shape::kUnitRows>(work, index);
        const auto* from = reinterpret_cast<const unsigned char*>(
            work.args.matrices[unit.matrix].weight + unit.row * work.args.in_features);
        ring.empty[ring_unit].wait(parity);
        if (++ring_unit == plan.ring_units) {
          ring_unit = 0;
          parity ^= 1;
        }
        if (is_whole) {
          for (int row = 0; row < Shape::kUnitRows; row += plan.slot_rows) {
            copy(from + row * row_bytes, min(unit.rows - row, plan.slot_rows) * row_bytes);
          }
        } else {
          for (int task = 0; task < Shape::kTasks; ++task) {
            const int row = task / Shape::kParts;
            const int begin = (pass * Shape::kParts + task % Shape::kParts) * kPartBytes;
            const int bytes = row < unit.rows ? min(row_bytes - begin, kPartBytes) : 0;
            copy(from + static_cast<int64_t>(row) * row_bytes + begin, bytes);
          }
        }
      }
    }
  }
}
#endif

// Threads beside those that multiply, one of which copies: a warp, or as many as it takes to hand
// registers over.
template <int kRows, int kPieces>
inline constexpr int kCopyThreads = kRows * kPieces >= 16 ? 4 * kWarp : kWarp;

// Weights come through a ring in shared memory that one thread fills by bulk copies.
template <typename T, int kRows, int kPieces>
__global__ void __launch_bounds__(kProductThreads + kCopyThreads<kRows, kPieces>, 1)
    linear_ring_kernel(const __grid_constant__ Work<T> work) {
#if __CUDA_ARCH__ >= 900
  using Product = FewRowsProduct<T, kRows, kPieces>;
  using Shape = typename Product::Shape;
  let_next_start();
  extern __shared__ __align__(128) unsigned char shared[];
  auto* sums = reinterpret_cast<float*>(shared + kRingBytes);
  auto* squares = sums + kSetSums * kProductWarps;
  auto* full = reinterpret_cast<CopyBarrier*>(squares + kRows * kProductWarps);
  const Ring ring{shared, full, full + kMostSlots};
  const FewRowsPlan& plan = work.plan;
  if (threadIdx.x == kProductThreads) {
    for (int i = 0; i < plan.ring_units * plan.unit_slots; ++i) ring.full[i].init(1);
    for (int i = 0; i < plan.ring_units; ++i) ring.empty[i].init(kProductWarps);
    fence_barrier_init();
  }
  __syncthreads();
  constexpr bool kHandsOver = kCopyThreads<kRows, kPieces> > kWarp;
  if (threadIdx.x >= kProductThreads) {
    if constexpr (kHandsOver) give_registers<40>();
    if (threadIdx.x == kProductThreads) fill_ring<Shape>(work, ring);
    return;
  }

  if constexpr (kHandsOver) take_registers<232>();
  Product product(work.args, work.plan, sums, squares);
  wait_for_previous();
  const int slot_shift = plan.slot_shift;
  int ring_unit = 0;
  int parity = 0;
  for_each_unit<kRows>(work, product, [&](int, int pass, typename Product::Tasks& w) {
    const int first_slot = ring_unit * plan.unit_slots;
#pragma unroll
    for (int task = 0; task < Shape::kTasks; ++task) {
      // A slot has slot_rows tasks: 1, 2 or 4. Of rows that are not there what the slot had
      // remains, and what that gives is not stored.
      const int slot = first_slot + (Shape::kParts > 1 ? task : task >> slot_shift);
      const int within = Shape::kParts > 1 ? 0 : (task & (plan.slot_rows - 1)) * plan.pieces;
      const int part = pass * Shape::kParts + task % Shape::kParts;
      const int left = plan.pieces - part * kPartPieces * kProductThreads;
      ring.full[slot].wait(parity);
      const auto* from =
          reinterpret_cast<const uint4*>(ring.bytes + slot * plan.slot_bytes) + within;
#pragma unroll
      for (int j = 0; j < Shape::kPartLoads; ++j) {
        const int piece = j * kProductThreads + static_cast<int>(threadIdx.x);
        w[task][j] = piece < left ? from[piece] : uint4{};
      }
    }
    __syncwarp();
    if (threadIdx.x % kWarp == 0) ring.empty[ring_unit].arrive();
    if (++ring_unit == plan.ring_units) {
      ring_unit = 0;
      parity ^= 1;
    }
  });
#endif
}

// Weights come straight to registers.
template <typename T, int kRows, int kPieces>
__global__ void __launch_bounds__(kProductThreads, kRows > 2 ? 1 : 2)
    linear_direct_kernel(const __grid_constant__ Work<T> work) {
  using Product = FewRowsProduct<T, kRows, kPieces>;
  using Shape = typename Product::Shape;
  __shared__ __align__(16) float sums[kSetSums * kProductWarps];
  __shared__ float squares[kRows * kProductWarps];
  let_next_start();
  Product product(work.args, work.plan, sums, squares);
  wait_for_previous();
  for_each_unit<kRows>(work, product, [&](int index, int pass, typename Product::Tasks& w) {
    const RowUnit unit = unit_at<Shape::kUnitRows>(work, index);
    const T* weight = work.args.matrices[unit.matrix].weight + unit.row * work.args.in_features;
#pragma unroll
    for (int task = 0; task < Shape::kTasks; ++task) {
      const int row = task / Shape::kParts;
      const int part = pass * Shape::kParts + task % Shape::kParts;
#pragma unroll
      for (int j = 0; j < Shape::kPartLoads; ++j) {
        const int piece =
            (part * kPartPieces + j) * kProductThreads + static_cast<int>(threadIdx.x);
        const bool is_there = row < unit.rows && piece < work.plan.pieces;
        const T* from = weight + row * work.args.in_features + static_cast<int64_t>(piece) * 8;
        w[task][j] = is_there ? load_constant(from) : uint4{};
      }
    }
  });
}

constexpr int ring_shared_bytes(int rows) {
  return kRingBytes + (kSetSums + rows) * kProductWarps * static_cast<int>(sizeof(float)) +
         2 * kMostSlots * static_cast<int>(sizeof(CopyBarrier));
}

template <typename T, int kRows, int kPieces>
cudaError_t launch_ring(const LinearFewRows<T>& args, const StepLaunch& launch) {
  using Shape = FewRowsShape<kRows, kPieces>;
  const Work<T> work{
      args, plan_few_rows<Shape, kRows>(args, launch.multiprocessors, launch.bytes_in_flight)};
  constexpr int kShared = ring_shared_bytes(kRows);
  const auto kernel = linear_ring_kernel<T, kRows, kPieces>;
  const auto error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  constexpr int kThreads = kProductThreads + kCopyThreads<kRows, kPieces>;
  return launch_step(launch, kernel, work.plan.blocks, kThreads, kShared, work);
}

template <typename T, int kRows>
cudaError_t launch_direct(const LinearFewRows<T>& args, const StepLaunch& launch) {
  using Shape = FewRowsShape<kRows, kPartPieces>;
  const int blocks = (kRows > 2 ? 1 : 2) * launch.multiprocessors;
  const Work<T> work{args, plan_few_rows<Shape, kRows>(args, blocks, 0)};
  const auto kernel = linear_direct_kernel<T, kRows, kPartPieces>;
  return launch_step(launch, kernel, work.plan.blocks, kProductThreads, 0, work);
}

template <typename T, int kRows>
cudaError_t launch_rows(const LinearFewRows<T>& args, const StepLaunch& launch) {
  if (!launch.has_bulk_copies) return launch_direct<T, kRows>(args, launch);
  constexpr int kMostPieces = kRows > 4 ? kPartPieces : 2 * kPartPieces;
  const int64_t pieces = (args.in_features + 8 * kProductThreads - 1) / (8 * kProductThreads);
  if (pieces <= 2) return launch_ring<T, kRows, 2>(args, launch);
  if (pieces <= kPartPieces) return launch_ring<T, kRows, kPartPieces>(args, launch);
  return launch_ring<T, kRows, kMostPieces>(args, launch);
}

}  // namespace

cudaError_t describe_device(StepLaunch* launch) {
  int device = 0;
  int major = 0;
  int shared_bytes = 0;
  auto error = cudaGetDevice(&device);
  const auto ask = [&](int* value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, attribute, device);
  };
  ask(&launch->multiprocessors, cudaDevAttrMultiProcessorCount);
  ask(&major, cudaDevAttrComputeCapabilityMajor);
  ask(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  launch->has_bulk_copies = major >= 9 && shared_bytes >= ring_shared_bytes(kFewRows);
  return error;
}

template <typename T>
cudaError_t linear_few_rows(const LinearFewRows<T>& args, const StepLaunch& launch) {
  if (args.in_features > kFewRowsMostFeatures) return cudaErrorInvalidValue;
  int64_t outputs = 0;
  for (int i = 0; i < args.count; ++i) outputs += args.matrices[i].out_features;
  if (args.rows * outputs == 0) return cudaSuccess;
  if (args.rows == 1) return launch_rows<T, 1>(args, launch);
  if (args.rows == 2) return launch_rows<T, 2>(args, launch);
  if (args.rows <= 4) return launch_rows<T, 4>(args, launch);
  return launch_rows<T, 8>(args, launch);
}

template cudaError_t linear_few_rows(const LinearFewRows<bfloat16>&, const StepLaunch&);
template cudaError_t linear_few_rows(const LinearFewRows<float16>&, const StepLaunch&);

}  // namespace mistral_ext::kernels::cuda
