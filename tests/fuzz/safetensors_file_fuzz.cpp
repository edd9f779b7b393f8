// A whole safetensors file: every byte of every tensor is read, as stored and converted, and what
// was read is written and read again.
#include <ATen/ops/equal.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "fuzz.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/write_safetensors.h"

using namespace mistral_ext;

namespace {

// A folder for what is written, in memory where there is such a place.
class Folder {
 public:
  Folder() {
    const std::filesystem::path memory = "/dev/shm";
    auto pattern = ((std::filesystem::is_directory(memory) && ::access(memory.c_str(), W_OK) == 0)
                        ? memory
                        : std::filesystem::temp_directory_path()) /
                   "mistral_ext_fuzz_XXXXXX";
    std::string name = pattern.string();
    fuzz::require(::mkdtemp(name.data()) != nullptr, "no folder could be made");
    path_ = name;
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.numel() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

io::StateDict read_all(const io::SafetensorsFile& file) {
  io::StateDict tensors;
  for (const auto& name : file.names()) {
    const auto* info = file.find(name);
    const auto tensor = file.tensor(name);
    fuzz::require(tensor.scalar_type() == info->dtype && tensor.sizes() == info->shape,
                  "a tensor must be what the header says");
    fuzz::require(same_bytes(tensor, file.converted(name, info->dtype, at::kCPU)),
                  "a copy must equal the tensor");
    if (!at::isComplexType(info->dtype)) file.converted(name, at::kFloat, at::kCPU);
    tensors.emplace(name, tensor);
  }
  return tensors;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::MemoryFile memory(fuzz::as_text(data, size));
  const auto file = fuzz::parse_within({fuzz::kFixed, 64}, size, [&] {
    return std::make_unique<io::SafetensorsFile>(memory.path());
  });
  if (!file) return 0;
  const auto tensors = read_all(**file);
  static const Folder folder;
  io::AtomicFile written(folder.path() / "f");
  io::write_safetensors(written, tensors, (*file)->metadata());
  written.finish();
  written.commit();
  const io::SafetensorsFile again(folder.path() / "f");
  fuzz::require(again.names() == (*file)->names() && again.metadata() == (*file)->metadata(),
                "a file that is written must read as the same");
  for (const auto& [name, tensor] : tensors) {
    fuzz::require(same_bytes(again.tensor(name), tensor),
                  "a tensor that is written must read as the same");
  }
  return 0;
}

#ifdef MISTRAL_EXT_FUZZ
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

// Changes the header and the length before it together: hardly any change of the one alone gives a
// file that is read further.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data,
                                          size_t size,
                                          size_t most,
                                          unsigned int seed) {
  uint64_t length = 0;
  if (size >= 8) std::memcpy(&length, data, 8);
  if (seed % 4 == 0 || size < 8 || length > size - 8) return LLVMFuzzerMutate(data, size, most);
  const std::vector<uint8_t> rest(data + 8 + length, data + size);
  const size_t room = most - rest.size() - 8;
  length = LLVMFuzzerMutate(data + 8, length, room);
  std::memcpy(data, &length, 8);
  std::copy(rest.begin(), rest.end(), data + 8 + length);
  return 8 + length + rest.size();
}
#endif
