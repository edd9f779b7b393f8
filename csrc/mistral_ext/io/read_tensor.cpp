#include "mistral_ext/io/read_tensor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "mistral_ext/io/on_threads.h"

namespace mistral_ext::io {
namespace {

// Elements converted at once: in a core's cache, and so few that copy_ starts no threads of
// torch's.
constexpr int64_t kPiece = 32767;
constexpr int64_t kDevicePieceBytes = int64_t{16} << 20;
// Below this, starting a thread costs more than it saves.
constexpr int64_t kThreadBytes = int64_t{2} << 20;

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
    const int64_t most = on_cpu ? kPiece : std::max<int64_t>(kDevicePieceBytes / element_, 1);
    // Parts of one run, or several runs.
    const bool is_split = runs_.count == 1;
    const int64_t units = is_split ? runs_.length : runs_.count;
    const int64_t piece =
        is_split ? std::min(most, units) : std::max<int64_t>(most / runs_.length, 1);
    const int64_t pieces = (units + piece - 1) / piece;
    const auto read_piece = [&](int64_t i) {
      read_units(i * piece, std::min((i + 1) * piece, units), is_split);
    };
    // On the CPU most of the time goes into the first touch of the result's pages, which threads
    // share.
    const int64_t threads =
        on_cpu ? std::min<int64_t>(at::get_num_threads(),
                                   static_cast<int64_t>(result_.nbytes()) / kThreadBytes)
               : 1;
    on_threads(threads, pieces, read_piece);
  }

 private:
  void read_units(int64_t begin, int64_t end, bool is_split) const {
    const int64_t unit = is_split ? 1 : runs_.length;
    // Not an at::empty: glibc does not use aligned memory again.
    std::vector<std::max_align_t> memory(
        (end - begin) * unit * element_ / static_cast<int64_t>(sizeof(std::max_align_t)) + 1);
    auto* const bytes = reinterpret_cast<std::byte*>(memory.data());
    if (is_split) {
      file_.read(begin_ + (runs_.first + begin) * element_, bytes, (end - begin) * element_);
    } else {
      for (int64_t run = begin; run < end; ++run) {
        file_.read(begin_ + (runs_.first + run * runs_.distance) * element_,
                   bytes + (run - begin) * unit * element_,
                   unit * element_);
      }
    }
    put(begin * unit, (end - begin) * unit, memory.data());
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
