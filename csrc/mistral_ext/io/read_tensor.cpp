#include "mistral_ext/io/read_tensor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace mistral_ext::io {
namespace {

// What is in memory at once: fits a core's cache.
constexpr int64_t kPieceBytes = int64_t{256} << 10;
constexpr int64_t kDevicePieceBytes = int64_t{16} << 20;

// Elements that lie in equal runs in the file, at equal distances.
struct Runs {
  int64_t first = 0;     // element
  int64_t count = 1;     // runs
  int64_t length = 0;    // elements of one
  int64_t distance = 0;  // elements from one's begin to the next one's

  Runs(const std::vector<int64_t>& shape, const std::optional<TensorPart>& part) {
    length = c10::multiply_integers(shape);
    if (!part) return;
    const auto at = shape.begin() + part->dim;
    const int64_t inner = c10::multiply_integers(at + 1, shape.end());
    count = c10::multiply_integers(shape.begin(), at);
    first = part->start * inner;
    length = part->length * inner;
    distance = *at * inner;
  }
};

class Reader {
 public:
  Reader(const File& file, const StoredTensor& stored, const Runs& runs, const at::Tensor& result)
      : file_(file),
        begin_(stored.offset),
        // A byte that is neither 0 nor 1 is no bool.
        is_bool_(stored.info.dtype == at::kBool),
        dtype_(is_bool_ ? at::kByte : stored.info.dtype),
        element_(static_cast<int64_t>(c10::elementSize(dtype_))),
        runs_(runs),
        result_(result) {}

  void read() {
    if (runs_.length == 0 || runs_.count == 0) return;
    const bool on_cpu = result_.is_cpu();
    const int64_t most =
        std::max<int64_t>((on_cpu ? kPieceBytes : kDevicePieceBytes) / element_, 1);
    // Parts of one run, or several runs.
    const bool is_split = runs_.count == 1;
    const int64_t units = is_split ? runs_.length : runs_.count;
    const int64_t piece =
        is_split ? std::min(most, units) : std::max<int64_t>(most / runs_.length, 1);
    const int64_t pieces = (units + piece - 1) / piece;
    const bool inference = c10::InferenceMode::is_enabled();
    const auto read_pieces = [&](int64_t from, int64_t to) {
      const c10::InferenceMode as_outside(inference);  // each thread has its own
      // Not an at::empty: glibc does not use aligned memory again.
      std::vector<std::max_align_t> memory(piece * (is_split ? 1 : runs_.length) * element_ /
                                               static_cast<int64_t>(sizeof(std::max_align_t)) +
                                           1);
      for (int64_t i = from; i < to; ++i) {
        read_units(i * piece, std::min((i + 1) * piece, units), is_split, memory.data());
      }
    };
    if (on_cpu) {
      // Most of the time goes into the first touch of the result's pages, which threads share.
      at::parallel_for(0, pieces, /*grain_size=*/1, read_pieces);
    } else {
      read_pieces(0, pieces);
    }
  }

 private:
  void read_units(int64_t begin, int64_t end, bool is_split, void* memory) const {
    const int64_t unit = is_split ? 1 : runs_.length;
    auto* bytes = static_cast<std::byte*>(memory);
    if (is_split) {
      file_.read(begin_ + (runs_.first + begin) * element_, bytes, (end - begin) * element_);
    } else {
      for (int64_t run = begin; run < end; ++run) {
        file_.read(begin_ + (runs_.first + run * runs_.distance) * element_,
                   bytes + (run - begin) * unit * element_,
                   unit * element_);
      }
    }
    put(begin * unit, (end - begin) * unit, memory);
  }

  void put(int64_t at, int64_t count, void* memory) const {
    auto piece = at::from_blob(memory, {count}, at::TensorOptions().dtype(dtype_));
    if (is_bool_) piece = piece.ne(0);
    result_.view(-1).narrow(0, at, count).copy_(piece.to(result_.device()));
  }

  const File& file_;
  int64_t begin_;
  bool is_bool_;
  at::ScalarType dtype_;
  int64_t element_;
  Runs runs_;
  const at::Tensor& result_;
};

}  // namespace

void read_tensor(const File& file,
                 const StoredTensor& stored,
                 const std::optional<TensorPart>& part,
                 const at::Tensor& result) {
  Reader(file, stored, Runs(stored.info.shape, part), result).read();
}

}  // namespace mistral_ext::io
