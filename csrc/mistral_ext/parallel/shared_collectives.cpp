#include "mistral_ext/parallel/shared_collectives.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "mistral_ext/core/check.h"

namespace mistral_ext::parallel {
namespace {

constexpr auto kBufferBytes = static_cast<int64_t>(SharedSegment::kBufferBytes);

// Up to here each rank reduces all, for one meeting instead of two.
constexpr int64_t kWholeBytes = 32 << 10;

// What of n elements goes through in rounds of at most `limit`, as body(first, count): at least
// once, so that ranks also meet for nothing.
template <typename Body>
void in_parts(int64_t n, int64_t limit, Body body) {
  int64_t first = 0;
  do {
    const int64_t count = std::min(limit, n - first);
    body(first, count);
    first += count;
  } while (first < n);
}

void copy_bytes(void* to, const void* from, int64_t bytes) {
  if (to != from && bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

std::byte* at(void* data, int64_t offset) { return static_cast<std::byte*>(data) + offset; }
const std::byte* at(const void* data, int64_t offset) {
  return static_cast<const std::byte*>(data) + offset;
}

CollectiveCall call_of(Collective collective,
                       Elements elements,
                       int root = 0,
                       Reduction reduction = Reduction::sum) {
  return {collective, reduction, static_cast<int16_t>(elements.dtype), root, elements.count};
}

// Room for each of `parts` in a buffer, in elements: whole cache lines.
int64_t share_of_buffer(Elements elements, int parts) {
  return kBufferBytes / parts / 64 * 64 / elements.item();
}

}  // namespace

SharedCollectives::SharedCollectives(
    c10d::Store& store, int rank, int size, const std::string& group, Timeout timeout)
    : rounds_(store, rank, size, group, timeout) {}

ReduceFunction SharedCollectives::function_for(const CollectiveCall& call) const {
  const auto dtype = static_cast<c10::ScalarType>(call.dtype);
  auto* const function = reduce_function(dtype, call.reduction);
  MISTRAL_EXT_CHECK(function != nullptr,
                    "{}: tensor must have a dtype with the reduction {}, got {}",
                    name_of(call.collective),
                    name_of(call.reduction),
                    c10::toString(dtype));
  return function;
}

void SharedCollectives::all_reduce(void* data,
                                   Elements elements,
                                   Reduction reduction,
                                   Timeout timeout) {
  const auto call = call_of(Collective::all_reduce, elements, 0, reduction);
  auto* const function = function_for(call);
  const std::lock_guard lock(mutex_);
  rounds_.begin(call, timeout);
  in_parts(elements.count, kBufferBytes / elements.item(), [&](int64_t first, int64_t count) {
    const Elements part{elements.dtype, count};
    auto* const from = at(data, first * elements.item());
    if (part.bytes() <= kWholeBytes) {
      reduce_whole(from, part, function);
    } else {
      reduce_slices(from, part, function);
    }
    rounds_.next_round();
  });
}

void SharedCollectives::reduce_whole(std::byte* data, Elements elements, ReduceFunction function) {
  copy_bytes(rounds_.mine(), data, elements.bytes());
  rounds_.meet();
  std::vector<const void*> inputs(size());
  for (int i = 0; i < size(); ++i) inputs[i] = i == rank() ? data : rounds_.of(i);
  function(data, inputs.data(), size(), elements.count);
}

// Each rank reduces a slice, and all fetch the slices from where they were reduced.
void SharedCollectives::reduce_slices(std::byte* data, Elements elements, ReduceFunction function) {
  // Whole cache lines, so that no two ranks write to the same one.
  const int64_t each = ((elements.count + size() - 1) / size() + 63) / 64 * 64;
  struct Slice {
    int64_t offset;
    int64_t count;
    int64_t bytes;
  };
  const auto slice_of = [&](int i) {
    const int64_t first = std::min(i * each, elements.count);
    const int64_t count = std::min(each, elements.count - first);
    return Slice{first * elements.item(), count, count * elements.item()};
  };
  for (int i = 0; i < size(); ++i) {
    const auto [offset, count, bytes] = slice_of(i);
    if (i != rank()) copy_bytes(rounds_.mine() + offset, data + offset, bytes);
  }
  rounds_.meet();
  const auto own = slice_of(rank());
  std::vector<const void*> inputs(size());
  for (int i = 0; i < size(); ++i) {
    inputs[i] = (i == rank() ? data : rounds_.of(i)) + own.offset;
  }
  function(data + own.offset, inputs.data(), size(), own.count);
  copy_bytes(rounds_.mine() + own.offset, data + own.offset, own.bytes);
  rounds_.meet();
  for (int i = 0; i < size(); ++i) {
    const auto [offset, count, bytes] = slice_of(i);
    if (i != rank()) copy_bytes(data + offset, rounds_.of(i) + offset, bytes);
  }
}

void SharedCollectives::reduce(
    void* data, Elements elements, Reduction reduction, int root, Timeout timeout) {
  const auto call = call_of(Collective::reduce, elements, root, reduction);
  auto* const function = function_for(call);
  const std::lock_guard lock(mutex_);
  rounds_.begin(call, timeout);
  in_parts(elements.count, kBufferBytes / elements.item(), [&](int64_t first, int64_t count) {
    auto* const from = at(data, first * elements.item());
    if (rank() != root) copy_bytes(rounds_.mine(), from, count * elements.item());
    rounds_.meet();
    if (rank() == root) {
      std::vector<const void*> inputs(size());
      for (int i = 0; i < size(); ++i) inputs[i] = i == root ? from : rounds_.of(i);
      function(from, inputs.data(), size(), count);
    }
    rounds_.next_round();
  });
}

void SharedCollectives::broadcast(void* data, Elements elements, int root, Timeout timeout) {
  const std::lock_guard lock(mutex_);
  rounds_.begin(call_of(Collective::broadcast, elements, root), timeout);
  in_parts(elements.bytes(), kBufferBytes, [&](int64_t first, int64_t bytes) {
    if (rank() == root) copy_bytes(rounds_.mine(), at(data, first), bytes);
    rounds_.meet();
    if (rank() != root) copy_bytes(at(data, first), rounds_.of(root), bytes);
    rounds_.next_round();
  });
}

void SharedCollectives::all_gather(std::span<void* const> outputs,
                                   const void* input,
                                   Elements elements,
                                   Timeout timeout) {
  const std::lock_guard lock(mutex_);
  rounds_.begin(call_of(Collective::all_gather, elements), timeout);
  in_parts(elements.bytes(), kBufferBytes, [&](int64_t first, int64_t bytes) {
    copy_bytes(rounds_.mine(), at(input, first), bytes);
    copy_bytes(at(outputs[rank()], first), at(input, first), bytes);
    rounds_.meet();
    for (int i = 0; i < size(); ++i) {
      if (i != rank()) copy_bytes(at(outputs[i], first), rounds_.of(i), bytes);
    }
    rounds_.next_round();
  });
}

void SharedCollectives::gather(std::span<void* const> outputs,
                               const void* input,
                               Elements elements,
                               int root,
                               Timeout timeout) {
  const std::lock_guard lock(mutex_);
  rounds_.begin(call_of(Collective::gather, elements, root), timeout);
  in_parts(elements.bytes(), kBufferBytes, [&](int64_t first, int64_t bytes) {
    if (rank() != root) copy_bytes(rounds_.mine(), at(input, first), bytes);
    rounds_.meet();
    for (int i = 0; rank() == root && i < size(); ++i) {
      copy_bytes(at(outputs[i], first), i == root ? at(input, first) : rounds_.of(i), bytes);
    }
    rounds_.next_round();
  });
}

void SharedCollectives::scatter(void* output,
                                std::span<const void* const> inputs,
                                Elements elements,
                                int root,
                                Timeout timeout) {
  const std::lock_guard lock(mutex_);
  rounds_.begin(call_of(Collective::scatter, elements, root), timeout);
  const int64_t limit = share_of_buffer(elements, size());
  const int64_t stride = limit * elements.item();
  in_parts(elements.count, limit, [&](int64_t first, int64_t count) {
    const int64_t offset = first * elements.item();
    const int64_t bytes = count * elements.item();
    for (int i = 0; rank() == root && i < size(); ++i) {
      copy_bytes(i == root ? at(output, offset) : rounds_.mine() + i * stride,
                 at(inputs[i], offset),
                 bytes);
    }
    rounds_.meet();
    if (rank() != root) copy_bytes(at(output, offset), rounds_.of(root) + rank() * stride, bytes);
    rounds_.next_round();
  });
}

void SharedCollectives::reduce_scatter(void* output,
                                       std::span<const void* const> inputs,
                                       Elements elements,
                                       Reduction reduction,
                                       Timeout timeout) {
  const auto call = call_of(Collective::reduce_scatter, elements, 0, reduction);
  auto* const function = function_for(call);
  const std::lock_guard lock(mutex_);
  rounds_.begin(call, timeout);
  const int64_t limit = share_of_buffer(elements, size());
  const int64_t stride = limit * elements.item();
  std::vector<const void*> parts(size());
  in_parts(elements.count, limit, [&](int64_t first, int64_t count) {
    const int64_t offset = first * elements.item();
    for (int i = 0; i < size(); ++i) {
      if (i == rank()) continue;
      copy_bytes(rounds_.mine() + i * stride, at(inputs[i], offset), count * elements.item());
    }
    rounds_.meet();
    for (int i = 0; i < size(); ++i) {
      parts[i] = i == rank() ? at(inputs[i], offset) : rounds_.of(i) + rank() * stride;
    }
    function(at(output, offset), parts.data(), size(), count);
    rounds_.next_round();
  });
}

void SharedCollectives::all_to_all(std::span<void* const> outputs,
                                   std::span<const int64_t> output_counts,
                                   std::span<const void* const> inputs,
                                   std::span<const int64_t> input_counts,
                                   c10::ScalarType dtype,
                                   Timeout timeout) {
  const Elements none{dtype, 0};
  const std::lock_guard lock(mutex_);
  rounds_.begin(call_of(Collective::all_to_all, none), timeout);
  // How much goes from whom to whom is known when all have laid open their own part.
  const auto table_bytes = static_cast<int64_t>(sizeof(int64_t)) * size();
  copy_bytes(rounds_.mine(), input_counts.data(), table_bytes);
  copy_bytes(rounds_.mine() + table_bytes, output_counts.data(), table_bytes);
  rounds_.meet();
  std::vector<int64_t> sent(size());
  std::vector<int64_t> expected(size());
  int64_t most = 0;
  for (int from = 0; from < size(); ++from) {
    copy_bytes(sent.data(), rounds_.of(from), table_bytes);
    for (int to = 0; to < size(); ++to) {
      copy_bytes(expected.data(), rounds_.of(to) + table_bytes, table_bytes);
      if (sent[to] != expected[from]) {
        rounds_.fail(
            fmt::format("rank {} must expect what rank {} sends to it, {} elements, got {}",
                        to,
                        from,
                        sent[to],
                        expected[from]));
      }
      most = std::max(most, sent[to]);
    }
  }
  rounds_.next_round();
  const int64_t limit = share_of_buffer(none, size());
  const int64_t stride = limit * none.item();
  in_parts(most, limit, [&](int64_t first, int64_t) {
    const auto bytes = [&](int64_t count) {
      return std::clamp<int64_t>(count - first, 0, limit) * none.item();
    };
    const int64_t offset = first * none.item();
    for (int i = 0; i < size(); ++i) {
      if (bytes(input_counts[i]) == 0) continue;
      copy_bytes(rounds_.mine() + i * stride, at(inputs[i], offset), bytes(input_counts[i]));
    }
    rounds_.meet();
    for (int i = 0; i < size(); ++i) {
      if (bytes(output_counts[i]) == 0) continue;
      copy_bytes(at(outputs[i], offset), rounds_.of(i) + rank() * stride, bytes(output_counts[i]));
    }
    rounds_.next_round();
  });
}

void SharedCollectives::barrier(Timeout timeout) {
  const std::lock_guard lock(mutex_);
  rounds_.begin({}, timeout);
  rounds_.meet();
  rounds_.next_round();
}

void SharedCollectives::leave() {
  const std::lock_guard lock(mutex_);
  rounds_.leave();
}

void SharedCollectives::abort() { rounds_.abort(); }

}  // namespace mistral_ext::parallel
