// What the collectives give, between threads that are the ranks.

#include "mistral_ext/parallel/shared_memory_backend.h"

#include <torch/torch.h>

#include <array>
#include <limits>

#include "parallel/ranks.h"
#include "parallel/reductions.h"

namespace mistral_ext::parallel {
namespace {

using c10d::ReduceOp;

constexpr auto kBufferBytes = static_cast<int64_t>(SharedSegment::kBufferBytes);

constexpr std::array kDtypes = {at::kDouble,
                                at::kFloat,
                                at::kHalf,
                                at::kBFloat16,
                                at::kLong,
                                at::kInt,
                                at::kShort,
                                at::kChar,
                                at::kByte,
                                at::kBool};

// The ends of each way through: nothing, one, what each rank reduces whole, slices, several parts.
std::vector<int64_t> sizes_of(at::ScalarType dtype) {
  const auto item = static_cast<int64_t>(c10::elementSize(dtype));
  return {0, 1, 7, 1000, (32 << 10) / item, (32 << 10) / item + 1, kBufferBytes / item + 77};
}

// What the rank brings along: the same wherever it is asked for.
torch::Tensor input_of(int rank, int64_t n, at::ScalarType dtype) {
  auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(1000 * rank + n));
  if (dtype == at::kBool) return torch::randint(0, 2, {n}, generator).to(dtype);
  if (at::isIntegralType(dtype, false)) return torch::randint(-99, 99, {n}, generator).to(dtype);
  return torch::randn({n}, generator).to(dtype);
}

Tensors inputs_of(int ranks, int64_t n, at::ScalarType dtype) {
  Tensors inputs;
  for (int rank = 0; rank < ranks; ++rank) inputs.push_back(input_of(rank, n, dtype));
  return inputs;
}

c10d::AllreduceOptions with(ReduceOp::RedOpType op) {
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  return options;
}

// NaN is as good as NaN.
bool same(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && torch::allclose(a, b, 0, 0, true);
}

std::string about(at::ScalarType dtype, int64_t n, ReduceOp::RedOpType op) {
  return c10::str(dtype, " x ", n, ", reduction ", static_cast<int>(op));
}

class Ranks : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

INSTANTIATE_TEST_SUITE_P(Of, Ranks, testing::Values(1, 2, 3, 4));

TEST_P(Ranks, AllReduceIsTheReductionInTheOrderOfTheRanks) {
  in_threads(GetParam(), [&](SharedMemoryBackend& backend, int rank) {
    for (const auto dtype : kDtypes) {
      for (const auto n : sizes_of(dtype)) {
        const auto inputs = inputs_of(GetParam(), n, dtype);
        for (const auto op : reductions_of(dtype)) {
          Tensors tensors = {inputs[rank].clone()};
          const auto work = backend.allreduce(tensors, with(op));
          EXPECT_TRUE(same(tensors[0], reduced(inputs, op))) << about(dtype, n, op);
          EXPECT_TRUE(work->getFuture()->value().toTensorVector()[0].is_same(tensors[0]));
        }
      }
    }
  });
}

TEST_P(Ranks, ReduceWritesToTheRootAlone) {
  in_threads(GetParam(), [&](SharedMemoryBackend& backend, int rank) {
    for (const auto n : sizes_of(at::kFloat)) {
      const auto inputs = inputs_of(GetParam(), n, at::kFloat);
      for (int root = 0; root < GetParam(); ++root) {
        Tensors tensors = {inputs[rank].clone()};
        c10d::ReduceOptions options;
        options.rootRank = root;
        backend.reduce(tensors, options);
        EXPECT_TRUE(same(tensors[0], rank == root ? reduced(inputs, ReduceOp::SUM) : inputs[rank]));
      }
    }
  });
}

TEST_P(Ranks, ReduceScatterGivesEachItsPart) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    for (const auto dtype : kDtypes) {
      for (const auto n : sizes_of(dtype)) {
        const auto inputs = inputs_of(size, size * n, dtype);
        for (const auto op : reductions_of(dtype)) {
          c10d::ReduceScatterOptions options;
          options.reduceOp = op;
          const auto expected = reduced(inputs, op).narrow(0, rank * n, n);
          auto output = torch::zeros({n}, dtype);
          auto input = inputs[rank].clone();
          backend._reduce_scatter_base(output, input, options);
          EXPECT_TRUE(same(output, expected)) << about(dtype, n, op);
          EXPECT_TRUE(torch::equal(input, inputs[rank]));
          Tensors outputs = {torch::zeros({n}, dtype)};
          std::vector<Tensors> lists = {input.view({size, n}).unbind()};
          backend.reduce_scatter(outputs, lists, options);
          EXPECT_TRUE(same(outputs[0], expected)) << about(dtype, n, op);
        }
      }
    }
  });
}

TEST_P(Ranks, ReduceScatterMayWriteToItsOwnPartOfTheInput) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    for (const auto n : sizes_of(at::kBFloat16)) {
      const auto inputs = inputs_of(size, size * n, at::kBFloat16);
      auto input = inputs[rank].clone();
      auto output = input.narrow(0, rank * n, n);
      backend._reduce_scatter_base(output, input, {});
      EXPECT_TRUE(same(output, reduced(inputs, ReduceOp::SUM).narrow(0, rank * n, n)));
    }
  });
}

TEST_P(Ranks, AllGatherGivesEachEveryPart) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    for (const auto dtype : kDtypes) {
      for (const auto n : sizes_of(dtype)) {
        const auto inputs = inputs_of(size, n, dtype);
        auto output = torch::zeros({size * n}, dtype);
        auto input = inputs[rank];
        backend._allgather_base(output, input, {});
        EXPECT_TRUE(torch::equal(output, torch::cat(inputs)));
        std::vector<Tensors> outputs = {output.zero_().view({size, n}).unbind()};
        Tensors lists = {input};
        backend.allgather(outputs, lists, {});
        EXPECT_TRUE(torch::equal(output, torch::cat(inputs)));
      }
    }
  });
}

TEST_P(Ranks, AllGatherMayReadItsOwnPartOfTheOutput) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    for (const auto n : sizes_of(at::kFloat)) {
      const auto inputs = inputs_of(size, n, at::kFloat);
      auto output = torch::zeros({size * n});
      auto input = output.narrow(0, rank * n, n);
      input.copy_(inputs[rank]);
      backend._allgather_base(output, input, {});
      EXPECT_TRUE(torch::equal(output, torch::cat(inputs)));
    }
  });
}

TEST_P(Ranks, BroadcastGathersAndScatters) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    for (const auto dtype : {at::kFloat, at::kBool, at::kComplexDouble, at::kFloat8_e4m3fn}) {
      const auto item = static_cast<int64_t>(c10::elementSize(dtype));
      for (const auto n : sizes_of(dtype)) {
        // Of these dtypes only the bytes matter.
        const auto of = [&](int from) { return input_of(from, n * item, at::kByte).view(dtype); };
        const auto equal = [&](const torch::Tensor& a, const torch::Tensor& b) {
          return torch::equal(a.view(at::kByte), b.view(at::kByte));
        };
        for (int root = 0; root < size; ++root) {
          Tensors tensors = {of(rank)};
          c10d::BroadcastOptions from_root;
          from_root.rootRank = root;
          backend.broadcast(tensors, from_root);
          EXPECT_TRUE(equal(tensors[0], of(root)));

          Tensors inputs = {of(rank)};
          std::vector<Tensors> outputs;
          if (rank == root) outputs.emplace_back(torch::zeros({size, n}, dtype).unbind());
          c10d::GatherOptions to_root;
          to_root.rootRank = root;
          backend.gather(outputs, inputs, to_root);
          for (int from = 0; rank == root && from < size; ++from) {
            EXPECT_TRUE(equal(outputs[0][from], of(from)));
          }

          std::vector<Tensors> parts;
          if (rank == root) {
            for (int to = 0; to < size; ++to) parts.resize(1), parts[0].push_back(of(10 + to));
          }
          Tensors part = {torch::zeros({n}, dtype)};
          c10d::ScatterOptions scattered;
          scattered.rootRank = root;
          backend.scatter(part, parts, scattered);
          EXPECT_TRUE(equal(part[0], of(10 + rank)));
        }
      }
    }
  });
}

// How many elements `from` sends to `to`: also none, and several buffers' worth.
int64_t sent(int from, int to) { return from == to + 1 ? 0 : 300'000 * from + 7 * to + 1; }

TEST_P(Ranks, AllToAllExchangesPartsOfAnySize) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    Tensors inputs;
    Tensors expected;
    std::vector<int64_t> input_splits;
    std::vector<int64_t> output_splits;
    for (int other = 0; other < size; ++other) {
      input_splits.push_back(sent(rank, other));
      output_splits.push_back(sent(other, rank));
      inputs.push_back(input_of(10 * rank + other, input_splits.back(), at::kFloat));
      expected.push_back(input_of(10 * other + rank, output_splits.back(), at::kFloat));
    }
    Tensors outputs;
    for (const auto& tensor : expected) outputs.push_back(torch::zeros_like(tensor));
    backend.alltoall(outputs, inputs, {});
    EXPECT_TRUE(torch::equal(torch::cat(outputs), torch::cat(expected)));

    auto input = torch::cat(inputs).view({-1, 1});
    auto output = torch::zeros_like(torch::cat(expected)).view({-1, 1});
    backend.alltoall_base(output, input, output_splits, input_splits, {});
    EXPECT_TRUE(torch::equal(output.view({-1}), torch::cat(expected)));

    auto even = torch::full({2 * size, 3}, rank);
    auto exchanged = torch::zeros({2 * size, 3}, at::kLong);
    std::vector<int64_t> none;
    backend.alltoall_base(exchanged, even, none, none, {});
    const auto ranks = torch::arange(size).repeat_interleave(2).view({-1, 1}).expand({-1, 3});
    EXPECT_TRUE(torch::equal(exchanged, ranks));
  });
}

TEST_P(Ranks, TensorsNeedNotBeContiguous) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    const auto of = [](int from) { return input_of(from, 600, at::kFloat).view({20, 30}); };
    Tensors inputs;
    for (int from = 0; from < size; ++from) inputs.push_back(of(from));
    const auto expected = reduced(inputs, ReduceOp::SUM);
    Tensors tensors = {inputs[rank].t().contiguous().t()};
    ASSERT_FALSE(size > 0 && tensors[0].is_contiguous());
    backend.allreduce(tensors, with(ReduceOp::SUM));
    EXPECT_TRUE(torch::equal(tensors[0], expected));

    // A column between others, which stay as they are.
    auto table = torch::full({600, 3}, 5.0f);
    auto column = table.select(1, 1);
    column.copy_(inputs[rank].view({600}));
    tensors = {column};
    backend.allreduce(tensors, with(ReduceOp::SUM));
    EXPECT_TRUE(torch::equal(column, expected.view({600})));
    EXPECT_TRUE(torch::equal(table.select(1, 2), torch::full({600}, 5.0f)));

    std::vector<Tensors> outputs(1);
    for (int i = 0; i < size; ++i) outputs[0].push_back(torch::zeros({30, 20}).t());
    tensors = {inputs[rank].t().contiguous().t()};
    backend.allgather(outputs, tensors, {});
    EXPECT_TRUE(torch::equal(torch::stack(outputs[0]), torch::stack(inputs)));
  });
}

TEST_P(Ranks, NanIsTheLeastAndTheMostWhereverItIs) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    for (const auto op : {ReduceOp::MIN, ReduceOp::MAX}) {
      Tensors tensors = {torch::zeros({size})};
      tensors[0][rank] = std::numeric_limits<float>::quiet_NaN();
      backend.allreduce(tensors, with(op));
      EXPECT_TRUE(tensors[0].isnan().all().item<bool>());
    }
  });
}

TEST_P(Ranks, LeavesOfAutogradAreWrittenTo) {
  in_threads(GetParam(), [&](SharedMemoryBackend& backend, int rank) {
    Tensors tensors = {torch::full({3, 4}, float(rank)).t().requires_grad_()};
    backend.broadcast(tensors, {});
    EXPECT_EQ(tensors[0].sum().item<float>(), 0.0f);
  });
}

TEST_P(Ranks, BarrierReturnsWhenAllHaveCome) {
  std::atomic<int> come{0};
  in_threads(GetParam(), [&](SharedMemoryBackend& backend, int rank) {
    for (int round = 1; round <= 100; ++round) {
      if (rank == round % 4) std::this_thread::sleep_for(std::chrono::microseconds(50));
      ++come;
      backend.barrier({});
      EXPECT_GE(come.load(), round * GetParam());
      backend.barrier({});
    }
  });
}

// Ranks that run ahead must not write where others still read.
TEST_P(Ranks, ManyCallsInARowKeepApart) {
  const int size = GetParam();
  in_threads(size, [&](SharedMemoryBackend& backend, int rank) {
    const int total_of_ranks = size * (size + 1) / 2;
    for (int i = 0; i < 2000; ++i) {
      Tensors tensors = {torch::full({1 + i % 50}, float(i * (rank + 1)))};
      if (i % 3 == 0) {
        c10d::BroadcastOptions options;
        options.rootRank = i % size;
        backend.broadcast(tensors, options);
        ASSERT_EQ(tensors[0][0].item<float>(), float(i * (i % size + 1)));
      } else {
        backend.allreduce(tensors, with(ReduceOp::SUM));
        ASSERT_EQ(tensors[0][-1].item<float>(), float(i * total_of_ranks));
      }
    }
  });
}

TEST(SharedMemoryBackend, WrongArgumentsAreNamed) {
  in_threads(1, [](SharedMemoryBackend& backend, int) {
    const auto error = [&](auto tensors, ReduceOp::RedOpType op) {
      return error_of([&] { backend.allreduce(tensors, with(op)); });
    };
    EXPECT_EQ(error(Tensors{torch::zeros(2), torch::zeros(2)}, ReduceOp::SUM),
              "all_reduce: tensors must hold one entry, got 2");
    EXPECT_EQ(error(Tensors{torch::zeros(2, torch::kMeta)}, ReduceOp::SUM),
              "all_reduce: tensor must be a dense tensor on the CPU, got a tensor on meta with "
              "layout Strided");
    EXPECT_EQ(error(Tensors{torch::zeros({2, 2}).to_sparse()}, ReduceOp::SUM),
              "all_reduce: tensor must be a dense tensor on the CPU, got a tensor on cpu with "
              "layout Sparse");
    EXPECT_EQ(error(Tensors{torch::zeros(2, torch::kBool)}, ReduceOp::SUM),
              "all_reduce: tensor must have a dtype with the reduction sum, got Bool");
    EXPECT_EQ(error(Tensors{torch::zeros(2)}, ReduceOp::BAND),
              "all_reduce: tensor must have a dtype with the reduction bitwise and, got Float");
    auto output = torch::zeros(3);
    auto input = torch::zeros(2);
    EXPECT_EQ(
        error_of([&] { backend._allgather_base(output, input, {}); }),
        "all_gather: output must have 2 Float elements, 2 for each rank, got 3 Float elements");
    std::vector<int64_t> wrong = {1};
    std::vector<int64_t> right = {2};
    EXPECT_EQ(
        error_of([&] { backend.alltoall_base(output, input, right, wrong, {}); }),
        "all_to_all: input split sizes must be 1 numbers of rows that make up all 2, got [1]");
    Tensors one = {input};
    c10d::BroadcastOptions options;
    options.rootRank = 1;
    EXPECT_EQ(error_of([&] { backend.broadcast(one, options); }),
              "broadcast: root must be a rank below 1, got 1");
    // None of them has touched the group.
    EXPECT_EQ(error_of([&] { backend.barrier({}); }), "");
  });
}

}  // namespace
}  // namespace mistral_ext::parallel
