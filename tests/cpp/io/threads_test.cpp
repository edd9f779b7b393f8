// Several threads read checkpoints, which torch's threads convert. Run under ThreadSanitizer too.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "at_once.h"
#include "io/temporary_folder.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/write_safetensors.h"

namespace mistral_ext::io {
namespace {

// Several pieces each, of those in which a tensor is converted.
StateDict large_tensors() {
  torch::manual_seed(0);
  return {{"matrix", torch::randn({600, 700}).to(at::kBFloat16)},
          {"flags", torch::randint(0, 2, {700'001}).to(at::kBool)},
          {"vector", torch::randn({300'007})}};
}

std::filesystem::path written(const TemporaryFolder& folder, const StateDict& tensors) {
  const auto path = folder.path() / "file";
  AtomicFile file(path);
  write_safetensors(file, tensors);
  file.finish();
  file.commit();
  return path;
}

// True where all that a thread reads is what was written. Each begins with another tensor.
bool reads_what_was_written(const TensorSource& source, const StateDict& tensors, int thread) {
  const auto names = source.names();
  for (size_t i = 0; i < 2 * names.size(); ++i) {
    const auto& name = names[(i + thread) % names.size()];
    const auto& tensor = tensors.at(name);
    const int64_t dim = tensor.dim() - 1;
    const TensorPart part{dim, tensor.size(dim) / 5, tensor.size(dim) / 2};
    const auto expected = tensor.narrow(dim, part.start, part.length);
    if (!torch::equal(source.tensor(name), tensor) ||
        !torch::equal(source.slice(name, part), expected) ||
        !torch::equal(source.converted(name, at::kDouble, at::kCPU), tensor.to(at::kDouble)) ||
        !torch::equal(source.converted(name, at::kFloat, at::kCPU, part),
                      expected.to(at::kFloat))) {
      return false;
    }
  }
  return true;
}

TEST(Threads, EachReadsAndConvertsFromOneFile) {
  const TemporaryFolder folder;
  const auto tensors = large_tensors();
  const SafetensorsFile file(written(folder, tensors));
  EXPECT_EQ(run_at_once([&](int thread) -> int {
              return reads_what_was_written(file, tensors, thread) ? 1 : 0;
            }),
            std::vector<int>(kThreads, 1));
}

TEST(Threads, EachOpensTheFileForItself) {
  const TemporaryFolder folder;
  const auto tensors = large_tensors();
  const auto path = written(folder, tensors);
  EXPECT_EQ(run_at_once([&](int thread) -> int {
              return reads_what_was_written(SafetensorsFile(path), tensors, thread) ? 1 : 0;
            }),
            std::vector<int>(kThreads, 1));
}

}  // namespace
}  // namespace mistral_ext::io
